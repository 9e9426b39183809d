"""The names, in TFDS, of the test sets that share ImageNet's 1000 classes."""

V2_VARIANTS = ("matched-frequency", "threshold-0.7", "topimages")

# The published tar files of ImageNet-C and their corruptions; published means leave out `extra`.
ARCHIVES = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "weather": ("snow", "frost", "fog", "brightness"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
    "extra": ("gaussian_blur", "saturate", "spatter", "speckle_noise"),
}
BENCHMARK = tuple(
    name for archive, names in ARCHIVES.items() if archive != "extra" for name in names
)
CORRUPTIONS = tuple(name for names in ARCHIVES.values() for name in names)
SEVERITIES = (1, 2, 3, 4, 5)
CORRUPTED = "imagenet2012_corrupted"
CORRUPTED_SIDE = 224  # pixels: the published images are already cropped
# The version that `pnoise prepare` builds from the published files. TFDS corrupts the validation
# images itself and gives the result other versions.
OFFICIAL_CORRUPTED_VERSION = "1.0.0"

FIXED_NAMES = (
    "imagenet2012_real",
    "imagenet_a",
    "imagenet_r",
    "imagenet_sketch",
    *(f"imagenet_v2/{variant}" for variant in V2_VARIANTS),
)
CORRUPTED_NAMES = tuple(
    f"{CORRUPTED}/{corruption}_{severity}" for corruption in CORRUPTIONS for severity in SEVERITIES
)
NAMES = (*FIXED_NAMES, *CORRUPTED_NAMES)
PATTERN = f"{CORRUPTED}/<corruption>_<severity>"  # represents the 95 names in lists


def split_of(name: str) -> str:
    """The only split of one of `NAMES`."""
    return "validation" if name.startswith("imagenet2012") else "test"


def corruption_of(name: str) -> tuple[str, int]:
    """The corruption and the severity of one of `CORRUPTED_NAMES`."""
    corruption, _, severity = name.partition("/")[2].rpartition("_")
    return corruption, int(severity)
