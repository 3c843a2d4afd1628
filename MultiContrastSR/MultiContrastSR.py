"""Slicer module MultiContrastSR: wiring between Slicer, the panel in Logic/mcsr_slicer and the engine in Logic/mcsr."""

import os
import sys
import unittest

import qt
import slicer
import vtk
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

# Slicer appends the module's folder to sys.path, so a copy of mcsr that someone installed with pip would win over
# the one that this module was released with: Logic goes to the front.
LOGIC_FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "Logic")
sys.path[:] = [LOGIC_FOLDER, *(folder for folder in sys.path if folder != LOGIC_FOLDER)]

import mcsr  # noqa: E402
from mcsr_slicer.enhancement import Enhancement, Inputs  # noqa: E402
from mcsr_slicer.environment import missingPackages, torchVersion  # noqa: E402
from mcsr_slicer.job_runner import JobRunner  # noqa: E402
from mcsr_slicer.launchers import QProcessLauncher  # noqa: E402
from mcsr_slicer.panel import Panel  # noqa: E402
from mcsr_slicer.parameters import MultiContrastSRParameterNode  # noqa: E402
from mcsr_slicer.sample_data import loadPhantom, registerSampleData  # noqa: E402

OWN_PACKAGES = ("mcsr", "mcsr_slicer")
POLL_MS = 100
HOMEPAGE = "https://github.com/MultiContrastSR/SlicerMultiContrastSR"


class MultiContrastSR(ScriptedLoadableModule):
    """What Slicer shows of the module before it is opened."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("Multi-Contrast Super-Resolution")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Image Synthesis")]
        self.parent.dependencies = []
        self.parent.contributors = ["MultiContrastSR contributors"]
        self.parent.helpText = _(
            "Enhances a low-resolution MRI contrast with the help of a high-resolution contrast of the same patient. "
            'For research, not for diagnosis. See <a href="{url}">{url}</a>.'
        ).format(url=HOMEPAGE)
        self.parent.acknowledgementText = _(
            "The model weights were trained on MR images published by the Laboratory of Imaging Technologies, "
            "University of Ljubljana."
        )
        slicer.app.connect("startupCompleted()", registerSampleData)


class MultiContrastSRWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """Makes the panel and tells it of scene and parameter node.

    :param dialogs: ask the user; for tests.
    :param installer: changes Slicer's Python; for tests.
    """

    def __init__(self, parent=None, dialogs=None, installer=None):
        self._dialogs, self._installer = dialogs, installer
        self._parameterNode = None
        self._keptParameterNode = None
        self._guiTag = None
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)

    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)
        widget = slicer.util.loadUI(self.resourcePath("UI/MultiContrastSR.ui"))
        self.layout.addWidget(widget)
        self.ui = slicer.util.childWidgetVariables(widget)
        widget.setMRMLScene(slicer.mrmlScene)
        self.logic = MultiContrastSRLogic()
        self.ui.versionLabel.text = _("MultiContrastSR {version}. Research use only: not for diagnosis.").format(
            version=self.logic.version
        )
        self.ui.warningLabel.text = self.logic.engineWarning()
        self.ui.warningLabel.visible = bool(self.ui.warningLabel.text)
        self.panel = Panel(self.ui, self.logic, self._dialogs, self._installer)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartImportEvent, self.onSceneStartImport)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndImportEvent, self.onSceneEndImport)
        self.initializeParameterNode()

    def cleanup(self):
        """The module is unloaded: nothing may call back any more, and no process may stay."""
        self.setParameterNode(None)
        self.removeObservers()
        self.panel.cleanup()

    def enter(self):
        self.initializeParameterNode()

    def exit(self):
        """What is on its way goes on, and the panel stays equal to the parameter node; only the views rest."""
        self.panel.views.pause()

    def onSceneStartClose(self, caller, event):
        self.forgetParameterNode()
        self.panel.onSceneClosing()

    def onSceneEndClose(self, caller, event):
        if self.parent.isEntered:
            self.initializeParameterNode()

    def onSceneStartImport(self, caller, event):
        """A loaded scene brings its own choices, and may name nodes before it brings them."""
        self.forgetParameterNode()

    def onSceneEndImport(self, caller, event):
        if self.parent.isEntered or self.panel.isBusy:
            self.initializeParameterNode()

    def initializeParameterNode(self):
        # A wrapper never leaves its node, so one is used again and again until the scene is another.
        if self._keptParameterNode is None:
            self._keptParameterNode = self.logic.getParameterNode()
        self.setParameterNode(self._keptParameterNode)

    def forgetParameterNode(self):
        """The wrapper keeps copies of the node's values, which a closed or loaded scene changes in silence."""
        self.setParameterNode(None)
        self._keptParameterNode = None

    def setParameterNode(self, parameterNode):
        """Show a parameter node and follow it; None: follow none."""
        if parameterNode is not None and parameterNode is self._parameterNode:
            self.panel.setParameters(parameterNode)
            return
        if self._parameterNode is not None:
            self._parameterNode.disconnectGui(self._guiTag)
            self.removeObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self.onParametersModified)
        self._parameterNode = parameterNode
        if parameterNode is not None:
            # connectGui() does the same, but keeps the tag to itself, so that nothing could be disconnected.
            named = [(widget.property("SlicerParameterName"), widget) for widget in vars(self.ui).values()]
            self._guiTag = parameterNode.connectParametersToGui({name: widget for name, widget in named if name})
            self.addObserver(parameterNode, vtk.vtkCommand.ModifiedEvent, self.onParametersModified)
        self.panel.setParameters(parameterNode)

    def onParametersModified(self, caller, event):
        self.panel.onParametersModified()

    def onReload(self):
        """Reload the helper packages together with this file (developer mode)."""
        for name in list(sys.modules):
            if name.partition(".")[0] in OWN_PACKAGES:
                del sys.modules[name]
        ScriptedLoadableModuleWidget.onReload(self)


class MultiContrastSRLogic(ScriptedLoadableModuleLogic):
    """Enhances volumes in a child process; needs no panel and no main window.

    :param launcher: starts the process; Qt's by default.
    """

    def __init__(self, launcher=None):
        ScriptedLoadableModuleLogic.__init__(self)
        self.launcher = launcher or QProcessLauncher(qt)
        self.runner = JobRunner(self.launcher, temporaryFolder=slicer.app.temporaryPath)
        self._timer = qt.QTimer()
        self._timer.interval = POLL_MS
        self._timer.connect("timeout()", self.runner.poll)

    @property
    def version(self):
        """Version of the engine in use, which is the version of the extension."""
        return mcsr.__version__

    def getParameterNode(self):
        """The typed parameter node of the scene, made if there is none."""
        return MultiContrastSRParameterNode(super().getParameterNode())

    def engineWarning(self):
        """Return a sentence if another copy of mcsr was imported before this module's own, else an empty string."""
        folder = os.path.dirname(os.path.dirname(os.path.abspath(mcsr.__file__)))
        if os.path.realpath(folder) == os.path.realpath(LOGIC_FOLDER):
            return ""
        return _("Another copy of mcsr is in use ({folder}); remove it and restart Slicer.").format(folder=folder)

    def process(
        self,
        target,
        reference=None,
        outputVolume=None,
        *,
        groundTruth=None,
        transform=None,
        simulate=False,
        model="dcamsr-s",
        scale=4,
        outputFolder="",
        waitForCompletion=False,
        listener=None,
        **settings,
    ):
        """Enhance a volume.

        :param target: scalar volume node in low resolution (with ``simulate``: in high resolution, degraded first).
        :param reference: another contrast of the same patient; without one the target helps itself.
        :param outputVolume: node to use; by default a new one is made.
        :param groundTruth: the target in high resolution, to score the result.
        :param transform: linear transform node from the reference to the target; then nothing is registered.
        :param outputFolder: receives result.h5 and report.json.
        :param listener: an ``EnhancementListener``, called from Qt's event loop, or from within this call when waiting.
        :param settings: more of the engine's settings: plane, registration, device, precision, consistency, maps, seed.
        :return: the enhanced volume node when waiting, else the ``Enhancement`` on its way.
        :raises RuntimeError: when waiting, with the sentence that tells why there is no result.
        """
        settings = {"model": model, "scale": scale, **settings}
        if transform is not None:
            settings["registration"] = "none"
        inputs = Inputs(target, reference, outputVolume, groundTruth, transform, simulate, settings, outputFolder)
        enhancement = self.start(inputs, listener)
        if not waitForCompletion:
            return enhancement
        self.runner.waitForFinished()
        if enhancement.failure:
            raise RuntimeError(enhancement.failure)
        return enhancement.output

    def start(self, inputs, listener=None, kind="enhance"):
        """Start an enhancement of ``Inputs``, or with kind "maps" the maps of the result that is their output."""
        self._timer.start()
        return Enhancement(self.runner, inputs, listener, kind)

    def shutdown(self):
        """End the child process, with whatever it does."""
        self._timer.stop()
        self.runner.shutdown()


class MultiContrastSRTest(ScriptedLoadableModuleTest):
    """Self test, run inside Slicer, with a main window or without; the engine's own tests run without Slicer."""

    def setUp(self):
        slicer.mrmlScene.Clear()

    def runTest(self):
        for name in sorted(name for name in dir(self) if name.startswith("test_")):
            self.setUp()
            try:
                getattr(self, name)()
            except unittest.SkipTest as reason:
                self.delayDisplay(f"Skipped: {reason}")

    def test_own_engine(self):
        logic = MultiContrastSRLogic()
        self.assertTrue(logic.version)
        self.assertEqual(logic.engineWarning(), "")

    def test_parameter_node(self):
        parameters = MultiContrastSRLogic().getParameterNode()
        self.assertEqual((parameters.model, parameters.scale, parameters.maps), ("dcamsr-s", 4, "none"))
        parameters.scale = 2
        self.assertEqual(MultiContrastSRLogic().getParameterNode().scale, 2)

    def test_phantom(self):
        target, reference, truth = loadPhantom("small")
        self.assertEqual(target.GetImageData().GetDimensions()[2], truth.GetImageData().GetDimensions()[2])
        self.assertGreater(target.GetSpacing()[0], 3 * truth.GetSpacing()[0])
        self.assertIsNotNone(reference.GetDisplayNode())

    def test_panel(self):
        if not hasattr(slicer.modules, "multicontrastsr"):
            self.skipTest("The module was loaded as a file alone; add its folder to the module paths.")
        widget = slicer.modules.multicontrastsr.widgetRepresentation().self()
        if slicer.util.mainWindow() is not None:
            slicer.util.selectModule("MultiContrastSR")
        widget.enter()
        self.assertFalse(widget.ui.applyButton.enabled)
        self.assertIn("target", widget.ui.statusLabel.text)
        target, reference, truth = loadPhantom("small")
        widget.ui.targetSelector.setCurrentNode(target)
        widget.ui.referenceSelector.setCurrentNode(reference)
        self.assertTrue(widget.ui.applyButton.enabled)
        widget.ui.groundTruthSelector.setCurrentNode(target)
        self.assertFalse(widget.ui.applyButton.enabled)
        widget.ui.groundTruthSelector.setCurrentNode(truth)
        self.assertTrue(widget.ui.applyButton.enabled)
        slicer.mrmlScene.Clear()
        widget.enter()
        self.assertFalse(widget.ui.applyButton.enabled)

    def test_enhancement(self):
        if torchVersion() is None or missingPackages():
            self.skipTest("PyTorch, h5py or safetensors is not installed in this Slicer.")
        target, reference, truth = loadPhantom("small")
        logic = MultiContrastSRLogic()
        try:
            result = logic.process(
                target, reference, groundTruth=truth, device="cpu", registration="none", waitForCompletion=True
            )
        finally:
            logic.shutdown()
        self.assertEqual(result.GetImageData().GetDimensions(), truth.GetImageData().GetDimensions())
        self.assertEqual(result.GetAttribute("MultiContrastSR.ModelId"), "dcamsr-s")
        enhanced, original = (slicer.util.arrayFromVolume(node).astype(float) for node in (result, truth))
        self.assertLess(abs(enhanced - original).mean(), 0.1 * original.max())
