"""Where results stand in the subject hierarchy: beside their target, in folders."""

from __future__ import annotations

import slicer
import vtk


def fileBeside(node: slicer.vtkMRMLNode, sibling: slicer.vtkMRMLNode, *folders: str) -> None:
    """Put a node under the parent of another (its study), there into nested folders, which are made as needed."""
    hierarchy = _hierarchy(node.GetScene())
    parent = hierarchy.GetItemParent(_itemOf(hierarchy, sibling))
    for name in folders:
        parent = hierarchy.GetItemChildWithName(parent, name) or hierarchy.CreateFolderItem(parent, name)
    hierarchy.SetItemParent(_itemOf(hierarchy, node), parent)


def allItems(scene: slicer.vtkMRMLScene) -> set[int]:
    """Nodes and folders."""
    hierarchy, found = _hierarchy(scene), vtk.vtkIdList()
    hierarchy.GetItemChildren(hierarchy.GetSceneItemID(), found, True)
    return {found.GetId(n) for n in range(found.GetNumberOfIds())}


def removeItems(scene: slicer.vtkMRMLScene, items: set[int]) -> None:
    """Remove items, but neither their nodes nor what is in them, which moves up."""
    for item in items:
        _hierarchy(scene).RemoveItem(item, False, False)


def _hierarchy(scene: slicer.vtkMRMLScene) -> slicer.vtkMRMLSubjectHierarchyNode:
    return slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)


def _itemOf(hierarchy: slicer.vtkMRMLSubjectHierarchyNode, node: slicer.vtkMRMLNode) -> int:
    """In Slicer every node has an item already; without its windows none has."""
    return hierarchy.GetItemByDataNode(node) or hierarchy.CreateItem(hierarchy.GetSceneItemID(), node)
