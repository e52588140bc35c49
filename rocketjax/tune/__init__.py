"""Labels into a better judge: training through the yes/no logit, by the same forward pass as grading."""

from rocketjax.tune.config import RecipeFile, SourceEntry, load_sources, make_recipe, read_recipe
from rocketjax.tune.data import Corpus, Packer, Source, batches, collect, epoch_rows, steps
from rocketjax.tune.loss import Head, Reading, init_head, init_reading
from rocketjax.tune.step import Learner, Optimizer, Params, data_mesh, init_soft
from rocketjax.tune.train import Progress, Recipe, Tuned, step_scale, tune

__all__ = [
    "Corpus", "Head", "Learner", "Optimizer", "Packer", "Params", "Progress", "Reading", "Recipe", "RecipeFile",
    "Source", "SourceEntry", "Tuned", "batches", "collect", "data_mesh", "epoch_rows", "init_head", "init_reading",
    "init_soft", "load_sources", "make_recipe", "read_recipe", "step_scale", "steps", "tune",
]  # fmt: skip
