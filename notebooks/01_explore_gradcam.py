# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Where do the networks look?
#
# **Research use only, not a medical device.**
#
# A network ends in a stack of small pictures, its *last feature layer*: each of a thousand
# or more channels says where on the image it has found something of its own kind. The
# network takes the mean of every channel and adds these means up, each with a weight per
# class; the sum is the class's score. **Grad-CAM** undoes this last step only: it adds up the
# pictures themselves with the weights of one class and keeps what is above zero. What lights
# up is where the evidence for that class came from, *as this network counts evidence*.
#
# What a map is not:
#
# - **not an outline of disease.** Its grid has 4 to 8 cells a side; the smooth look is
#   made by enlarging it. A maximum can lie half a cell off by the grid alone.
# - **not a reason.** It says where, not what. A network that learned to tell hospitals apart
#   by their lead markers will light up the marker, or, worse, a lung for the wrong reason.
# - **not a certificate.** A plausible map on a few images proves nothing; below, images are
#   drawn by rules, not picked because they look good.
#
# The same image is shown three times: as MobileNetV2 sees it, as InceptionV3 sees it, and
# the average of both by the ensemble's weights.

# %% [markdown]
# ## What to look at
# Change these lines, or set the environment variables of the same meaning. The run must have
# been trained (`make train`). Images come from its test split if that was evaluated
# (`make evaluate`), else from validation.

# %% tags=["parameters"]
import os

data = os.environ.get("CXR_DATA", "phantom")
run_name = os.environ.get("CXR_RUN", "default")
output_root = os.environ.get("CXR_OUTPUT_ROOT", "../outputs")
seed = 0

# %%
# Show figures below their cells.
# %matplotlib inline

# %%
import numpy as np

from cxr.explain.map_plots import draw_examples, draw_maps
from cxr.explain.selection import confidence, select_images
from cxr.labels import label_indices
from cxr.pipeline.config import RunConfig
from cxr.pipeline.trained_run import TrainedRun

run = TrainedRun(RunConfig(data=data, run=run_name, output_root=output_root))
labels = run.ensemble.labels
print(f"{len(run.rows)} images of the {run.split} split · {run.note}")
print("weights of the ensemble:", {k: round(w, 2) for k, w in run.ensemble.weights.items()})
run.predictions.groupby(["label", "prediction"]).size().unstack(fill_value=0)


# %% [markdown]
# ## Images of one class, right and wrong
# `order` is `"random"` (what is usual), `"most_confident"` or `"least_confident"` (what is
# extreme). The maps explain the class that the ensemble *predicted*.


# %%
def show(chosen, title):
    """Draw the chosen images with every map of the predicted class."""
    if not len(chosen):
        return f"no such image: {title}"
    classes = np.array(label_indices(run.predictions["prediction"].iloc[chosen], labels))
    maps = run.maps(chosen, classes)
    examples = run.examples(chosen, maps, run.masks("lesion_mask", chosen))
    return draw_examples(examples, title=title, note=run.note)


label = labels[1]
show(
    select_images(
        run.predictions, label=label, right=True, count=2, rng=np.random.default_rng(seed)
    ),
    f"{label}, rightly recognised, at random",
)

# %%
show(
    select_images(
        run.predictions, label=label, right=False, count=2, rng=np.random.default_rng(seed)
    ),
    f"{label}, mistaken for another class, at random",
)

# %% [markdown]
# ## The most confident mistakes, and the images that hang in the balance
# A confident mistake is where a map can teach most: is the maximum on something that no
# radiologist would look at?

# %%
show(
    select_images(run.predictions, right=False, order="most_confident", count=2),
    "most confident mistakes",
)

# %%
show(select_images(run.predictions, order="least_confident", count=2), "least confident")

# %% [markdown]
# ## One image, the case for every class
# The same network, the same image, four questions. Maps of different classes are each scaled to
# their own maximum, so compare *where* they light up, not how brightly.

# %%
image = select_images(run.predictions, right=True, order="most_confident", count=1)
if not len(image):
    image = select_images(run.predictions, order="most_confident", count=1)
lesions = run.masks("lesion_mask", image)
lesion = None if lesions is None else lesions[0]
truth = run.predictions["label"].iloc[image[0]]
panels = {}
for place, name in enumerate(labels):
    maps = run.maps(image, np.array([place]))
    panels |= {f"{member}: {name}": values[0] for member, values in maps.items()}
draw_maps(
    run.images(image)[0],
    panels,
    title=f"true class {truth}, confidence {confidence(run.predictions)[image[0]]:.2f}",
    note=run.note,
    lesion=lesion,
)

# %% [markdown]
# ## Other methods
# All are from the pytorch-grad-cam library; `GradCAM` there is what we compute in closed form, so
# the first two panels must look alike (the library stretches each map to 0..1 as well).
# `RandomCAM` mixes the channels at random: what still looks convincing there is the network's
# general interest in the image, not evidence for a class. `EigenCAM` asks for no class at all.

# %%
target = np.array(label_indices([truth], labels))
methods = [
    "closed_form",
    "GradCAM",
    "HiResCAM",
    "GradCAMPlusPlus",
    "XGradCAM",
    "EigenCAM",
    "LayerCAM",
    "RandomCAM",
]
found = {method: run.maps(image, target, method=method) for method in methods}
draw_maps(
    run.images(image)[0],
    {method: maps["ensemble"][0] for method, maps in found.items()},
    title=f"ensemble's map of {truth} by different methods",
    note=run.note,
    lesion=lesion,
)

# %% [markdown]
# ## Does the maximum lie in the lesion?
# Only synthetic images come with the true outline of their disease. `make explain` counts, over
# every image of the split, how often the maximum lies inside it, and what a random point would
# score; see `explain/explain.json` in the run's folder.
