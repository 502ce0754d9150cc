"""Guards sublayers/attention_blocked.py: blocks give attention's numbers and gradients, and hold no [T, S] matrix."""

import tracemalloc
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import attentions
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from onelayer import fused, positions
from onelayer.arrays import generator, map_tree, natural
from onelayer.models.decoder_only import look_mask
from onelayer.positions import Places, Size
from onelayer.sublayers import attention, attention_blocked

B, T, H, K, D = 2, 23, 3, 4, 10
PAIRWISE = [
    name
    for name in positions.available()
    if ((method := positions.get(name)).pairwise or not method.has("score")) and not method.has("value")
]


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    monkeypatch.setattr(attention_blocked, "BLOCK", 5)
    monkeypatch.setattr(attention_blocked, "LONG", 1)


def random(*shape: int) -> np.ndarray:
    return generator(3, "test_attention_blocked", *shape).standard_normal(shape)


def drawn(method: positions.Method, size: Size) -> attention.Params:
    return attentions.drawn(method, size, random)


def agree(p: Any, x_q: Any, x_k: Any, places: Places, method: positions.Method) -> None:
    dout = random(*x_q.shape)
    assert attention_blocked.fits(x_q, x_k, method, attention.keep)
    out, c = attention.forward(p, x_q, x_k, places, method)
    expected = out, *attention.backward(dout, c, method)
    with fused.using(attention_blocked.STAND_INS):
        out, c = attention.forward(p, x_q, x_k, places, method)
        got = out, *attention.backward(dout, c, method)
    assert isinstance(c, attention_blocked.Cache)
    attentions.equal(got, expected)


@pytest.mark.parametrize("name", PAIRWISE)
@pytest.mark.parametrize("causal", [True, False])
def test_equals_attention(name, causal):
    method = positions.get(name)
    size = Size(D, H, K, T, causal)
    x = random(B, T, D)
    agree(drawn(method, size), x, x, Places(natural(T), natural(T), look_mask(T, T, causal, None, x), causal), method)


@pytest.mark.parametrize("n", [1, 7])
@pytest.mark.parametrize("name", ["none", "t5", "rope"])
def test_last_queries_alone(n, name):
    method, x = positions.get(name), random(B, T, D)
    places = Places(natural(T)[T - n :], natural(T), look_mask(T, n, True, None, x), True)
    agree(drawn(method, Size(D, H, K, T)), x[:, T - n :], x, places, method)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("causal", [True, False])
def test_padding(batch, causal):
    method, x = positions.get("none"), random(batch, T, D)
    present = natural(T)[None] >= np.arange(6, 6 + batch)[:, None]  # the first may see nothing, as causal as it is
    places = Places(natural(T), natural(T), look_mask(T, T, causal, present, x), causal)
    agree(drawn(method, Size(D, H, K, T)), x, x, places, method)


def test_across():
    method, x_q, x_k = positions.get("none"), random(B, 9, D), random(B, T, D)
    agree(drawn(method, Size(D, H, K, T)), x_q, x_k, Places(natural(9), natural(T), None, False), method)


@pytest.mark.parametrize("name", ["cope", "forget", "shaw"])
def test_what_looks_at_all_keys_is_not_cut_up(name):
    assert not attention_blocked.fits(random(B, T, D), random(B, T, D), positions.get(name), attention.keep)


def test_short_or_watched_attention_is_left_alone(monkeypatch):
    x, method = random(B, T, D), positions.get("none")
    assert not attention_blocked.fits(x, x, method, lambda name, value: value)
    monkeypatch.setattr(attention_blocked, "LONG", T + 1)
    assert not attention_blocked.fits(x, x, method, attention.keep)


def test_on_every_backend(xp):
    method = positions.get("t5")
    p, x = drawn(method, Size(D, H, K, T)), random(B, T, D)

    def both(p: Any, x: Any, dout: Any) -> Any:
        places = Places(natural(T), natural(T), look_mask(T, T, True, None, x), True)
        out, c = attention_blocked.forward_in_blocks(p, x, x, places, method)
        return out, *attention_blocked.backward_in_blocks(dout, c, method)

    places = Places(natural(T), natural(T), look_mask(T, T, True, None, x), True)
    out, c = attention.forward(p, x, x, places, method)
    expected = out, *attention.backward(random(B, T, D), c, method)
    attentions.equal(xp(both, p, x, random(B, T, D)), expected)


def test_a_whole_model():
    attentions.equal_in_a_model(attention_blocked.STAND_INS, B, T, norm="pre", position="rope")


def test_memory_grows_with_length_not_with_its_square(monkeypatch):
    monkeypatch.setattr(attention_blocked, "BLOCK", 64)
    method = positions.get("none")
    p = drawn(method, Size(D, H, K, T))

    def peak(length: int) -> int:
        x = random(1, length, D)
        tracemalloc.start()
        with fused.using(attention_blocked.STAND_INS):
            places = Places(natural(length), natural(length), look_mask(length, length, True, None, x), True)
            _, c = attention.forward(p, x, x, places, method)
            attention.backward(x, c, method)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(2048) < 2.2 * peak(1024)


# ------------------------------------------------------------------------------------------ JAX's loop


class Case(NamedTuple):
    """Attention but for its numbers. `mask` makes the mask from x_q: in the compiled program, as models do."""

    method: positions.Method
    mask: Callable[[Any], Any]
    causal: bool
    ids: tuple[np.ndarray, np.ndarray]

    def __call__(self, p: Any, x_q: Any, x_k: Any, dout: Any) -> Any:
        """The output, and every gradient."""
        out, c = attention.forward(p, x_q, x_k, Places(*self.ids, self.mask(x_q), self.causal), self.method)
        return out, *attention.backward(dout, c, self.method)

    def in_blocks(self, *given: Any) -> Any:
        with fused.using(attention_blocked.STAND_INS):
            return self(*given)


def causal_case(name: str, causal: bool = True, n: int = T, present: Any = None) -> Case:
    ids = natural(T)[T - n :], natural(T)
    return Case(positions.get(name), lambda x: look_mask(T, n, causal, present, x), causal, ids)


def drawn_for(case: Case, *, n: int = T, keys: int = T, batch: int = B) -> tuple[Any, ...]:
    p, x = drawn(case.method, Size(D, H, K, T, case.causal)), random(batch, keys, D)
    x_q = x[:, keys - n :] if n <= keys else random(batch, n, D)
    return p, x_q, x, random(*x_q.shape)


def agree_in_jax(case: Case, given: tuple[Any, ...]) -> None:
    """Compiled by JAX, against plain attention in NumPy."""
    attentions.equal(map_tree(np.asarray, jax.jit(case.in_blocks)(*map_tree(jnp.asarray, given))), case(*given))


@pytest.mark.parametrize("name", ["none", "rope", *(n for n in PAIRWISE if positions.get(n).has("score"))])
@pytest.mark.parametrize("causal", [True, False])
def test_jax_equals_attention(name, causal):
    case = causal_case(name, causal)
    agree_in_jax(case, drawn_for(case))


@pytest.mark.parametrize("n", [1, 7])
def test_jax_last_queries_alone(n):
    case = causal_case("t5", n=n)
    agree_in_jax(case, drawn_for(case, n=n))


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("causal", [True, False])
def test_jax_padding(batch, causal):
    present = natural(T)[None] >= np.arange(6, 6 + batch)[:, None]  # the first may see nothing, as causal as it is
    case = causal_case("none", causal, present=present)
    agree_in_jax(case, drawn_for(case, batch=batch))


@pytest.mark.parametrize(("n", "keys"), [(9, T), (T, 9), (3, 4), (10, 15)])
def test_jax_across(n, keys):
    case = Case(positions.get("none"), lambda x: None, False, (natural(n), natural(keys)))
    agree_in_jax(case, drawn_for(case, n=n, keys=keys))


def test_jax_any_mask_and_drawn_places():
    mask = random(B, 1, T, T) > 0.3
    mask[0, 0, 4] = False  # this row may see nothing
    ids = np.sort(generator(0, "ids").integers(0, 50, (B, T)), axis=1)
    case = Case(positions.get("transformer_xl"), lambda x: mask, False, (ids, ids))
    agree_in_jax(case, drawn_for(case))


@pytest.mark.parametrize("name", ["kerple", "transformer_xl"])
def test_jax_side_by_side(name):
    """Under vmap, as ensembles take their steps: each member is what it is alone."""
    present = natural(T)[None] >= np.arange(6, 6 + B)[:, None]
    case = causal_case(name, present=present)
    members = [map_tree(lambda a, i=i: a + 0.1 * i * random(*a.shape), drawn_for(case)) for i in range(3)]
    got = jax.jit(jax.vmap(case.in_blocks))(*map_tree(lambda *a: jnp.stack(a), *members))
    for i, given in enumerate(members):
        attentions.equal(map_tree(lambda a, i=i: np.asarray(a[i]), got), case(*given))


def test_jax_memory_grows_with_length_and_the_program_does_not(monkeypatch):
    monkeypatch.setattr(attention_blocked, "BLOCK", 128)

    def program(length: int, blocked: bool) -> tuple[int, int]:
        """Bytes of its buffers, and how many matrix products are written in it."""
        mask = partial(look_mask, length, length, True, None)
        case = Case(positions.get("none"), mask, True, (natural(length), natural(length)))
        given = drawn_for(case, n=length, keys=length, batch=1)
        lowered = jax.jit(case.in_blocks if blocked else case.__call__).lower(*given)
        return lowered.compile().memory_analysis().temp_size_in_bytes, lowered.as_text().count("dot_general")

    (short, products), (long, as_many), (whole, _) = program(1024, True), program(2048, True), program(2048, False)
    assert long < 2.2 * short
    assert long < whole / 8
    assert as_many == products
