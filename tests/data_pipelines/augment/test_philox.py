from __future__ import annotations

import numpy as np
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from data_pipelines.augment.philox import normals, philox_words, uniforms

WORD = st.integers(0, 2**32 - 1)


def test_the_published_answers() -> None:
    """Random123's kat_vectors for philox4x32-10, all words 0."""
    assert np.asarray(
        philox_words(np.zeros((1, 2), np.int32), np.zeros((1, 2)))[0, 0]
    ).tolist() == [
        0x6627E8D5,
        0xE169C58D,
        0xBC57AC4C,
        0x9B00DBD8,
    ]


@settings(max_examples=25)
@given(WORD, WORD, WORD, WORD)
def test_words_are_those_of_tensorflow(k0: int, k1: int, c0: int, c1: int) -> None:
    key = np.array([[k0, k1]], np.uint32).view(np.int32)
    ours = np.asarray(philox_words(key, np.array([[c0, c1]])))[0, 0]
    theirs = tf.raw_ops.StatelessRandomUniformFullIntV2(
        shape=[4],
        key=tf.constant([k0 + (k1 << 32)], tf.uint64),
        counter=tf.constant([c0 + (c1 << 32), 0], tf.uint64),
        alg=1,
        dtype=tf.uint32,
    )
    assert ours.tolist() == theirs.numpy().tolist()


def keys(count: int) -> np.ndarray:
    return np.stack([np.full(count, 5, np.int32), np.arange(count, dtype=np.int32)], axis=1)


def test_uniforms_are_uniform_independent_and_equal_in_every_mode() -> None:
    streams = [(3, 1), (7, 5), (1, 2)]
    eager = np.concatenate([np.asarray(part) for part in uniforms(keys(4000), streams)], axis=1)
    assert eager.shape == (4000, 8)
    assert (eager >= 0).all()
    assert (eager < 1).all()
    assert stats.kstest(eager.ravel(), "uniform").pvalue > 1e-3
    assert np.abs(np.corrcoef(eager.T) - np.eye(8)).max() < 0.06
    compiled = tf.function(lambda k: uniforms(k, streams), jit_compile=True)(keys(4000))
    assert (np.concatenate([part.numpy() for part in compiled], axis=1) == eager).all()


def test_a_stream_does_not_depend_on_the_others() -> None:
    alone = np.asarray(uniforms(keys(5), [(7, 5)])[0])
    assert (np.asarray(uniforms(keys(5), [(3, 9), (7, 6)])[1])[:, :5] == alone).all()


def test_normals_are_normal_and_white() -> None:
    values = np.asarray(normals(keys(20), (50, 40)))
    assert values.shape == (20, 50, 40)
    assert stats.kstest(values.ravel(), "norm").pvalue > 1e-3
    assert abs(stats.kurtosis(values.ravel())) < 0.1
    for shifted in (
        np.roll(values, 1, axis=0),
        np.roll(values, 1, axis=1),
        np.roll(values, 1, axis=2),
    ):
        assert abs((values * shifted).mean()) < 0.02
