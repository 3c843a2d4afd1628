"""Slicer module MultiContrastSR: wiring between Slicer and the engine in Logic/mcsr, nothing else."""

import os
import sys

import slicer
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)

# Slicer appends the module's folder to sys.path, so a copy of mcsr that someone installed with pip would win over
# the one that this module was released with: Logic goes to the front.
LOGIC_FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "Logic")
sys.path[:] = [LOGIC_FOLDER, *(folder for folder in sys.path if folder != LOGIC_FOLDER)]

import mcsr  # noqa: E402

OWN_PACKAGES = ("mcsr", "mcsr_slicer")
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


class MultiContrastSRWidget(ScriptedLoadableModuleWidget):
    """The panel: for now it says what is installed and how to run it outside Slicer."""

    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)
        widget = slicer.util.loadUI(self.resourcePath("UI/MultiContrastSR.ui"))
        self.layout.addWidget(widget)
        self.ui = slicer.util.childWidgetVariables(widget)
        widget.setMRMLScene(slicer.mrmlScene)
        self.logic = MultiContrastSRLogic()
        self.ui.versionLabel.text = _("MultiContrastSR {version}").format(version=self.logic.version)
        self.ui.messageLabel.text = _(
            "This version has no controls in Slicer yet: they come with a later one. "
            "The command line works today; in a terminal, with a copy of the repository:"
        )
        self.ui.commandLabel.text = 'pip install ".[cli,report]"\nmcsr enhance TARGET REFERENCE -o FOLDER'
        self.ui.warningLabel.text = self.logic.engineWarning()
        self.ui.warningLabel.visible = bool(self.ui.warningLabel.text)

    def onReload(self):
        """Reload the helper packages together with this file (developer mode)."""
        for name in list(sys.modules):
            if name.partition(".")[0] in OWN_PACKAGES:
                del sys.modules[name]
        ScriptedLoadableModuleWidget.onReload(self)


class MultiContrastSRLogic(ScriptedLoadableModuleLogic):
    """What the panel knows of the engine."""

    @property
    def version(self):
        """Version of the engine in use, which is the version of the extension."""
        return mcsr.__version__

    def engineWarning(self):
        """Return a sentence if another copy of mcsr was imported before this module's own, else an empty string."""
        folder = os.path.dirname(os.path.dirname(os.path.abspath(mcsr.__file__)))
        if os.path.realpath(folder) == os.path.realpath(LOGIC_FOLDER):
            return ""
        return _("Another copy of mcsr is in use ({folder}); remove it and restart Slicer.").format(folder=folder)


class MultiContrastSRTest(ScriptedLoadableModuleTest):
    """Self test, run inside Slicer; the engine's own tests run without it (make test)."""

    def setUp(self):
        slicer.mrmlScene.Clear()

    def runTest(self):
        self.setUp()
        self.test_own_engine()

    def test_own_engine(self):
        logic = MultiContrastSRLogic()
        self.assertTrue(logic.version)
        self.assertEqual(logic.engineWarning(), "")
