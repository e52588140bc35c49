"""Labels into a better judge: training through the yes/no logit, by the same forward pass as grading."""

from rocketjax.tune.config import RecipeFile, SourceEntry, load_sources, make_recipe, read_recipe
from rocketjax.tune.data import Corpus, Source, collect
from rocketjax.tune.train import Progress, Recipe, Tuned, tune

__all__ = [
    "Corpus", "Progress", "Recipe", "RecipeFile", "Source", "SourceEntry", "Tuned", "collect", "load_sources",
    "make_recipe", "read_recipe", "tune",
]  # fmt: skip
