"""What each setting means, for help and for docs/settings.md."""

from __future__ import annotations

from typing import NamedTuple


class Meaning(NamedTuple):
    """Of one setting."""

    text: str
    unit: str = ""
    default: str = ""  # in words, where the files have an expression


FOLDERS = {
    "bundle_root": Meaning("folder with `configs/` and `models/`", default="the project's"),
    "dataset_dir": Meaning(
        "data set to train on; image, or folder of images, to segment", default="a folder of the task's"
    ),
    "output_dir": Meaning("folder of what is written", default="`output` in `bundle_root`"),
    "ckpt_dir": Meaning("folder of weights and checkpoints of a training", default="`output_dir`"),
    "checkpoint": Meaning("file of weights, or a list of those of folds", default="those of the task"),
    "shipped_weights": Meaning("file of the weights that come with the task", default="in `models`"),
    "pretrained": Meaning("weights to start a training from, where names and shapes agree; empty for none"),
    "weights_sha256": Meaning("checksum that the weights must have"),
}
DATA = {
    "task": Meaning("what is segmented, by the name of a file of `configs/tasks`"),
    "class_names": Meaning("names of the classes 1, 2, ... without the background"),
    "num_classes": Meaning(
        "number of classes, with the background; or of regions", default="that of the names, and one of classes"
    ),
    "regions": Meaning("classes that make each of `class_names`, where these may overlap; none for exclusive classes"),
    "regions_class_order": Meaning(
        "number of each region in the mask that is written, one region over those before it; none for 1, 2, ...",
    ),
    "multi_label": Meaning("whether regions that may overlap are learned", default="whether there are `regions`"),
    "num_labels": Meaning(
        "number of classes in a label, with the background", default="`num_classes`, or those that make the regions"
    ),
    "ignore_label": Meaning("value in labels of what was not annotated: no loss and no metric there; none for none"),
    "spatial_dims": Meaning("3 for volumes, 2 for pictures", "axes"),
    "image_channels": Meaning("channels of an image", "channels"),
    "modality": Meaning("kind of image that the shipped weights know, for a warning"),
    "spacing": Meaning("voxel sizes that volumes are resampled to, and results back; none for no change", "mm"),
    "patch_size": Meaning("size of what a step of the training sees", "voxels"),
    "picture_size": Meaning("size that pictures are resized to, width and height; none for no change", "pixels"),
    "slice_size": Meaning(
        "size that the slices of a volume are resized to, axes R and A; none for no change", "pixels"
    ),
    "window": Meaning(
        "values that others are clipped to, as of Hounsfield units; none for zero mean and unit deviation of each image"
    ),
    "window_values": Meaning("what the ends of `window` become"),
    "class_values": Meaning("values of labels that stand for the classes, background first; none for 0, 1, 2, ..."),
    "class_ratios": Meaning(
        "how often a patch is centred on each class, background first; none for patches from anywhere"
    ),
    "case_pattern": Meaning("regular expression for the names of the cases that are taken; none for all"),
}
MODEL = {
    "num_train_timesteps": Meaning("timesteps T of the noise schedule", "timesteps"),
    "schedule": Meaning("noise schedule: cosine, linear_beta, ..."),
    "signal_scale": Meaning("factor of a true mask before noise is added"),
    "prediction_type": Meaning("what the denoiser answers: sample (the mask), epsilon (the noise) or v_prediction"),
}
SAMPLING = {
    "num_inference_steps": Meaning("denoising steps of a member", "steps"),
    "ensemble_size": Meaning("members that are drawn and fused", "members"),
    "fusion": Meaning("how members become a mask: mean, vote, staple or dice"),
    "seed": Meaning("of the noise; in training of weights, order and augmentation"),
    "start_from_anchor": Meaning("timestep at which noised masks of the anchor take the place of noise", "timestep"),
    "mirror_axes": Meaning("axes along which a mirror image is as likely as the image", "axes from 0"),
    "mirror_members": Meaning("whether members take turns with mirror images of the input"),
    "anchor_only": Meaning("no diffusion: the Condition Model's own segmentation"),
    "output": Meaning("what is kept of a member: probabilities or labels, which take less memory"),
    "roi_size": Meaning("size of a window; none for the whole image at once", "voxels"),
    "overlap": Meaning("share of a window that the next one covers, too"),
    "memory": Meaning(
        "what segmenting an image may take, such as 6GB, kept to by windows and labels; none has no bound",
        default="6 GB on a CPU, no bound on a GPU",
    ),
    "members_per_batch": Meaning("members that run at once; none for as many as memory holds", "members"),
    "eta": Meaning("noise that DDIM adds at each step, 0 to 1"),
}
RESULTS = {
    "uncertainty_maps": Meaning("maps that are saved: entropy, mutual_information, variance, disagreement"),
    "uncertainty_limit": Meaning("mean uncertainty inside a mask above which a case is flagged"),
    "report": Meaning("whether the pages are written"),
    "output_ext": Meaning("ending of the results; none for that of the image"),
    "also_write": Meaning("further files: seg.nrrd, stl, rtstruct"),
    "dicom_seg": Meaning("whether a DICOM series gets a segmentation object", default="true, but for MONAI Label"),
    "overwrite": Meaning("replace what is there; otherwise images that are done are left, and a training is refused"),
    "force": Meaning("segment an image in which nothing can be found, too"),
    "strict": Meaning("refuse a case that is unlike those that trained the weights, instead of a warning"),
    "progress": Meaning("whether a bar is shown", default="in a terminal"),
    "debug": Meaning("whether errors say where they come from"),
    "use_click": Meaning("set by MONAI Label"),
}
TRAINING = {
    "epochs": Meaning("passes through the training cases", "epochs"),
    "val_interval": Meaning("epochs from one validation to the next", "epochs"),
    "val_stride": Meaning("validate on every n-th case", "cases"),
    "batch_size": Meaning("cases of a step", "cases"),
    "learning_rate": Meaning("highest learning rate of AdamW, after a warm-up and before a cosine"),
    "ema_decay": Meaning("decay of the moving average of the weights, which is validated and kept"),
    "alpha": Meaning("the anchor trains on samples whose timestep is a multiple of it; none for never", "timesteps"),
    "beta": Meaning("weight of the cross-entropy in the anchor's loss"),
    "dice_weight": Meaning("weight of Dice in the anchor's loss"),
    "recycling": Meaning("share of the samples that train on the model's own masks in the place of true ones"),
    "drawn_members": Meaning("members that are drawn from pure noise for the energy score; none for the usual loss"),
    "passes_per_epoch": Meaning("passes through the cases that are one epoch", "passes"),
    "resume": Meaning("go on after the checkpoint in the folder; auto does so if there is one"),
    "keep": Meaning("checkpoints that are kept", "checkpoints"),
    "fold": Meaning("part of the cases that validates, from 0, in a cross-validation; none for the set's own split"),
    "num_folds": Meaning("parts of a cross-validation, unless the data set has its own", "parts"),
}
SPEED = {
    "device": Meaning("cpu, cuda:0, ...", default="a GPU if there is one"),
    "amp": Meaning("bfloat16 where it is safe", default="on a GPU"),
    "channels_last": Meaning("memory format of images and weights"),
    "compile": Meaning("torch.compile of the denoiser"),
    "num_workers": Meaning("processes that read and prepare images; 0 for the main one", "processes"),
    "process_group_timeout": Meaning("time that several processes wait for one another", "s"),
}
GROUPS = {
    "Files and folders": FOLDERS,
    "Data": DATA,
    "Model": MODEL,
    "Sampling": SAMPLING,
    "Results": RESULTS,
    "Training": TRAINING,
    "Speed": SPEED,
}
MEANINGS = {name: meaning for group in GROUPS.values() for name, meaning in group.items()}
