"""Between Slicer and the engine. Nothing here loads torch, h5py or safetensors: the worker does."""
