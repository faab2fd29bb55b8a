"""Twenty lines over a stack of pictures, for any executor: flat field, background, what moves, and how bright it is."""

import itertools

import numpy as np


def correct(picture, dark, flat):
    picture -= dark  # its own
    return picture / flat


def moves(before, after):
    return np.abs(after - before) > 3.0


def analyse(ex, count=6, side=400):
    rng = np.random.default_rng(7)
    dark, flat = rng.normal(5, 1, (side, side)), rng.uniform(0.5, 1.5, (side, side))
    stack = [rng.poisson(20, (side, side)).astype(float) for _ in range(count)]
    clean = [ex.submit(correct, picture, dark, flat) for picture in stack]
    masks = [ex.submit(moves, one, other) for one, other in itertools.pairwise(clean)]
    background = ex.submit(np.median, [one.result() for one in clean], axis=0).result()
    areas = ex.map(np.count_nonzero, [mask.result() for mask in masks])
    bright = list(ex.map(lambda one: float((one - background).max()), [one.result() for one in clean]))
    return background, list(areas), bright
