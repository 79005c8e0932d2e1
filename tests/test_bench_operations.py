"""Where a training step's time goes: classes of operations, by hand and of a step."""

import numpy as np
import pytest

from memejax.bench.train_step import operations, ours
from memejax.bench.train_step.problem import problem
from memejax.profile.table import Row


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("aten::addmm", "linear"),
        ("aten::mm", "linear"),
        ("aten::_scaled_dot_product_flash_attention_for_cpu_backward", "attention"),
        ("aten::native_batch_norm_backward", "normalisation"),
        ("aten::convolution_backward", "convolution"),
        ("aten::gelu_backward", "elementwise"),
        ("Optimizer.step#AdamW.step", "optimizer"),
        ("aten::copy_", "other"),
    ],
)
def test_classes_of_the_peer(name, kind):
    assert operations.peer_class(name) == kind


@pytest.mark.parametrize(
    ("primitive", "module", "kind", "expected"),
    [
        ("dot_general", "encoder/block0/mlp/up", "matmul", "linear"),
        ("dot_general", "encoder/block0/attention", "matmul", "attention"),
        ("reduce_sum", "encoder/block0/norm1", "normalisation", "normalisation"),
        ("conv_general_dilated", "encoder/conv1", "convolution", "convolution"),
        ("add", "optimizer", "elementwise", "optimizer"),
        ("transpose", "", "copy", "other"),
        ("erf", "encoder/block0/mlp", "elementwise", "elementwise"),
    ],
)
def test_our_classes(primitive, module, kind, expected):
    assert operations.our_class(Row(primitive, module, kind)) == expected


def test_a_step_is_divided():
    found = operations.scaled([("linear", 3.0), ("other", 1.0), ("linear", 4.0)], 0.8)
    assert found["linear"] == pytest.approx(700) and found["other"] == 100
    rows = operations.table_of({"ours": found})
    assert rows[-1] == {"class": "step", "ours": "800.0"}
    assert [row["class"] for row in rows[:-1]] == list(operations.CLASSES)


def test_a_profiled_step_keeps_the_trainer():
    trainer = ours.Trainer(problem("vit", "tiny"))
    found = operations.of_ours(trainer, steps=2)
    assert found["linear"] > 0 and found["attention"] > 0
    assert np.isfinite(list(found.values())).all()
    # Its state was copied, not donated.
    assert trainer.run(1) > 0
