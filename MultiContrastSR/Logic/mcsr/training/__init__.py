"""Training of the networks; needs only torch, numpy, h5py, lightning and safetensors."""
