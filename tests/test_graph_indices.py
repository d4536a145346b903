"""Numbers and indices of graphs, nodes and segments in the types in which they come."""

import numpy as np
import pytest
import torch

import amstel
from amstel.apps.graphs import classify
from amstel.data import ClusterLoader, TUDataset, colored_graphs
from amstel.nn import GraphClassifier, global_max_pool, global_mean_pool, global_sum_pool
from tests.test_tu import write


@pytest.mark.parametrize("parts", [np.int64(4), np.int32(4), 4])
def test_a_number_of_clusters_of_any_type(parts):
    loader = ClusterLoader(amstel.data.karate_club().graph, parts=parts, method="ranges")
    assert len(loader) == 4


@pytest.mark.parametrize("kind", [list, tuple, np.array, torch.tensor])
def test_the_clusters_of_nodes_of_any_type(kind):
    parts = kind([k % 3 for k in range(34)])
    assert len(ClusterLoader(amstel.data.karate_club().graph, parts=parts)) == 3


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint16, np.uint32, np.int64, np.uint64])
def test_graphs_by_indices_of_any_type(dtype):
    data = colored_graphs(9)
    index = np.array([1, 0, 2], dtype)
    assert data[index].labels.tolist() == data[[1, 0, 2]].labels.tolist()


@pytest.mark.parametrize("number", [2**64 - 1, 2**63 + 1])
def test_numbers_of_graphs_beyond_int64(number):
    """2**64 - 1 was -1, the last graph."""
    with pytest.raises(TypeError, match=r"`index` must be .*list of integers"):
        colored_graphs(4)[np.array([number], dtype=np.uint64)]


def test_graphs_by_a_range():
    data = colored_graphs(9)
    assert (
        len(data[range(2)]) == 2 and data[range(8, 0, -3)].labels.tolist() == data[[8, 5, 2]].labels.tolist()
    )
    with pytest.raises(IndexError, match="from -9 to 8, got 9"):
        data[range(10)]


@pytest.mark.parametrize("pool", [global_sum_pool, global_mean_pool, global_max_pool])
def test_segments_that_no_memory_holds_are_named(pool):
    """The allocator's error, bad_array_new_length, named no argument."""
    x, batch = torch.ones(3, 2), torch.tensor([0, 1, 2])
    with pytest.raises(
        ValueError, match=rf"`batch` must be below 1099511627776, of as many segments, got {2**61} "
    ):
        pool(x, batch * 2**60)
    for numbers in (batch, batch * 2**60):  # the size was said to be what the batch must be
        with pytest.raises(ValueError, match=rf"`size` must be at most 1099511627776, got {2**62} "):
            pool(x, numbers, size=2**62)


@pytest.mark.parametrize("propagate", [True, False])
def test_a_classifier_names_features_of_another_dtype(propagate):
    ring = amstel.Graph.from_edge_index(torch.tensor([[0, 1, 2], [1, 2, 0]]))
    with pytest.raises((TypeError, ValueError), match="`x` must "):
        GraphClassifier(4, 8, 2, propagate=propagate)(torch.ones(3, 4).double(), amstel.Graph.batch([ring]))


def test_targets_beside_classes_are_no_hindrance_to_classify(tmp_path):
    """That the graphs had no class, the error said, while their file of classes was there."""
    write(tmp_path, graph_attributes="0.5\n1.5\n2.5\n")
    assert TUDataset(tmp_path, "TINY").num_classes == 0
    assert TUDataset(tmp_path, "TINY", graph_attributes=False).classes == [-1, 1]
    assert classify.load_data("TINY", tmp_path).labels.tolist() == [1, 0, 1]
    (tmp_path / "TINY_graph_labels.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"TINY_graph_labels\.txt is missing"):
        classify.load_data("TINY", tmp_path)
