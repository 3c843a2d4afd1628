"""Scores as table nodes, and scores by slice as a plot."""

from __future__ import annotations

from collections.abc import Sequence

import slicer
import vtk
from mcsr.worker_messages import PartTable
from slicer.i18n import tr as _

# Blue and orange of the residual's two sides are taken; these two are told apart by everyone.
_SERIES_COLORS = ((0.0, 0.62, 0.45), (0.8, 0.47, 0.65), (0.9, 0.62, 0.0), (0.34, 0.71, 0.91))


def addTable(scene: slicer.vtkMRMLScene, table: PartTable, name: str) -> slicer.vtkMRMLTableNode:
    """A table node; columns of words stay words, numbers become numbers, None a gap (NaN)."""
    node = scene.AddNewNodeByClass("vtkMRMLTableNode", name)
    node.SetUseColumnTitleAsColumnHeader(True)
    for title, values in table.columns.items():
        node.AddColumn(_column(title, values))
    return node


def addPlot(table: slicer.vtkMRMLTableNode) -> list[slicer.vtkMRMLNode]:
    """A chart of all columns that begin with "psnr" over the column "slice".

    :returns: the chart, then its series; nothing for a table without such columns.
    """
    columns = [table.GetColumnName(n) for n in range(table.GetNumberOfColumns())]
    plotted = [name for name in columns if name.lower().startswith("psnr")]
    if "slice" not in columns or not plotted:
        return []
    scene = table.GetScene()
    chart = scene.AddNewNodeByClass("vtkMRMLPlotChartNode", f"{table.GetName()} plot")
    chart.SetTitle(table.GetName())
    chart.SetXAxisTitle(_("Slice"))
    chart.SetYAxisTitle(_("PSNR (dB)"))
    series = [_addSeries(table, name, number) for number, name in enumerate(plotted)]
    for one in series:
        chart.AddAndObservePlotSeriesNodeID(one.GetID())
    return [chart, *series]


def _addSeries(table: slicer.vtkMRMLTableNode, column: str, number: int) -> slicer.vtkMRMLPlotSeriesNode:
    title = column.partition("_")[2].replace("_", " ") or column
    series = table.GetScene().AddNewNodeByClass("vtkMRMLPlotSeriesNode", title)
    series.SetAndObserveTableNodeID(table.GetID())
    series.SetXColumnName("slice")
    series.SetYColumnName(column)
    series.SetPlotType(series.PlotTypeScatter)
    series.SetMarkerStyle(series.MarkerStyleCircle)
    series.SetLineStyle(series.LineStyleSolid)
    series.SetColor(*_SERIES_COLORS[number % len(_SERIES_COLORS)])
    return series


def _column(title: str, values: Sequence[object]) -> vtk.vtkAbstractArray:
    numbers = [value for value in values if isinstance(value, int | float)]
    isText = any(isinstance(value, str) for value in values)
    isWhole = len(numbers) == len(values) and all(isinstance(value, int) for value in numbers)
    array = vtk.vtkStringArray() if isText else vtk.vtkIntArray() if isWhole else vtk.vtkDoubleArray()
    array.SetName(title)
    for value in values:
        array.InsertNextValue(("" if isText else float("nan")) if value is None else str(value) if isText else value)
    return array
