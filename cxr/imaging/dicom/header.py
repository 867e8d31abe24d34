"""What a DICOM header says of its image: refused, flagged, or taken. H W pixels."""

from dataclasses import dataclass

from cxr.imaging.dicom.parse import Elements
from cxr.imaging.raster import MAX_COSTLY_PIXELS, ImageError, check_size

# A header field that should hold a code can hold anything, a name too; so a value leaves only if
# DICOM defines it (PS3.3, C.7.3.1.1.1 modalities; PS3.16, annex L body parts; PS3.3, C.8.7.1.1 and
# C.8.11.5 views) or if it is a number.
CHEST_MODALITIES = ("CR", "DX", "RG")
"""Computed, digital and image radiography."""
UNSURE_MODALITIES = ("OT", "SC", "HC", "XC")
"""Digitised and captured pictures of anything: a chest image only if the header adds so."""
_MODALITIES = (
    "AR AU BDUS BI BMD CT CTPROTOCOL DG DMS DOC ECG EEG EMG EPS ES FID GM HD IO IVOCT IVUS "
    "KER KO LEN LS M3D MG MR NM OAM OCT OP OPM OPT OPTBSV OPTENF OPV OSS PLAN PR PT PX REG "
    "RESP RF RTDOSE RTIMAGE RTPLAN RTRECORD RTSTRUCT RWV SEG SM SMR SR SRF STAIN TG US VA "
    "XA CD CF DD DF DM EC FA LP ST VF CS AS CP FS PC"
)
OTHER_MODALITIES = frozenset(_MODALITIES.split())

CHEST_PARTS = ("CHEST", "THORAX", "TORAX", "LUNG")
"""A body part that contains one of these words is the chest: vendors write CHEST PA."""
_PARTS = (
    "ABDOMEN ABDOMENPELVIS ADRENAL ANKLE AORTA ARM BACK BLADDER BRAIN BREAST BUTTOCK CALCANEUS "
    "CALF CAROTID CEREBELLUM CLAVICLE COCCYX COLON CSPINE EAR ELBOW EXTREMITY EYE FACE FEMUR "
    "FINGER FIBULA FOOT FOREARM HAND HEAD HEADNECK HIP HUMERUS ILIUM JAW KIDNEY KNEE LEG "
    "LIVER LOWLIMB LSPINE MANDIBLE MAXILLA NECK NOSE ORBIT PANCREAS PATELLA PELVIS PROSTATE "
    "RADIUS RADIUSULNA SCAPULA SHOULDER SIJOINT SINUS SKULL SPINE SSPINE STERNUM TEMPLE TESTIS "
    "THIGH THUMB THYROID TIBIA TIBIAFIBULA TLSPINE TMJ TOE TSPINE ULNA UPLIMB UTERUS VAGINA "
    "WHOLEBODY WRIST ZYGOMA"
)
OTHER_PARTS = frozenset(_PARTS.split())

VIEWS = {
    "frontal": ("PA", "AP"),
    "lateral": ("LL", "RL", "LAT", "LATERAL", "LLD", "RLD"),
    "oblique": ("RLO", "LLO", "LAO", "RAO", "LPO", "RPO", "OBL", "OBLIQUE", "LO", "RO"),
}

GRAY = ("MONOCHROME1", "MONOCHROME2")
COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")


@dataclass(frozen=True)
class Layout:
    """How the pixels are stored (PS3.3, C.7.6.3)."""

    rows: int
    columns: int
    samples: int
    photometric: str
    planar: bool
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool

    @property
    def pixels(self) -> int:
        """Number of pixels of a frame."""
        return self.rows * self.columns


def check_subject(elements: Elements) -> tuple[str, ...]:
    """Return a sentence for each doubt whether this is a chest radiograph by its header.

    Another modality, or another part of the body, is an ImageError.
    """
    modality, part = elements.text("Modality"), elements.text("BodyPartExamined")
    chest, seen = _chest_part(part), _view(elements.text("ViewPosition"))
    if chest is False:
        known = part if part in OTHER_PARTS else _bare(part)
        raise ImageError(
            f"is an image of something else by its header (BodyPartExamined {known}): "
            "chest images are read"
        )
    unsure = modality in UNSURE_MODALITIES
    if (unsure and not chest and seen != "frontal") or modality in OTHER_MODALITIES:
        raise ImageError(
            f"is no radiograph by its header (Modality {modality}): chest images of modality "
            f"{', '.join(CHEST_MODALITIES)} are read"
        )
    doubts = []
    if modality not in CHEST_MODALITIES:
        how = f"states modality {modality}" if unsure else "states no modality that we know"
        doubts.append(f"{how}: taken for a chest radiograph")
    if chest is None:
        what = "a body part that we do not know" if part else "no body part"
        doubts.append(f"states {what}: taken for a chest image")
    if seen in ("lateral", "oblique"):
        which = "a lateral" if seen == "lateral" else "an oblique"
        doubts.append(f"is {which} view by its header: the model knows frontal views only")
    elif not seen:
        doubts.append("states no view that we know: taken for a frontal one")
    return tuple(doubts)


def check_layout(elements: Elements) -> Layout:
    """Read how the pixels are stored, and refuse what cannot be shown as one gray image.

    Raises:
        ImageError: no pixels, several frames, too small or large, palettes, bits that
            contradict each other or more than 16.
    """
    if not elements.raw("PixelData"):
        raise ImageError("holds no pixels: it is a report or a plan; give the image itself")
    frames = elements.number("NumberOfFrames")
    if frames is not None and frames > 1:
        raise ImageError(f"holds {frames:.0f} frames: images of one frame are read")
    rows, columns = elements.integer("Rows"), elements.integer("Columns")
    check_size(columns, rows, "", most=MAX_COSTLY_PIXELS)
    allocated = elements.integer("BitsAllocated")
    stored = elements.integer("BitsStored", allocated)
    high = elements.integer("HighBit", stored - 1 if stored else 0)
    if allocated not in (8, 16) or not 1 <= stored <= high + 1 <= allocated:
        raise ImageError(
            f"has BitsAllocated {allocated}, BitsStored {stored} and HighBit {high}: 8 or 16, "
            "and stored bits within them, are read"
        )
    layout = Layout(
        rows=rows,
        columns=columns,
        samples=elements.integer("SamplesPerPixel", 1),
        photometric=elements.text("PhotometricInterpretation"),
        planar=elements.integer("PlanarConfiguration", 0) == 1,
        bits_allocated=allocated,
        bits_stored=stored,
        high_bit=high,
        signed=elements.integer("PixelRepresentation", 0) == 1,
    )
    _check_colour(layout)
    return layout


def _check_colour(layout: Layout) -> None:
    if layout.photometric in GRAY and layout.samples == 1:
        return
    if layout.photometric in COLOUR and layout.samples == 3 and layout.bits_allocated == 8:
        return
    known = layout.photometric in (*GRAY, *COLOUR, "PALETTE COLOR")
    raise ImageError(
        f"stores {layout.samples} samples of {layout.bits_allocated} bits as "
        f"{layout.photometric if known else 'something that DICOM does not define'}: "
        "MONOCHROME1, MONOCHROME2 and RGB of 8 bits are read"
    )


def _bare(part: str) -> str:
    return part.replace(" ", "").replace("_", "")


def _chest_part(part: str) -> bool | None:
    """Tell whether a body part is the chest; None where the term is not known."""
    if any(word in part for word in CHEST_PARTS):
        return True
    return False if _bare(part) in OTHER_PARTS else None


def _view(position: str) -> str:
    """Return frontal, lateral, oblique or, for a term that is not known, an empty text."""
    first = position.replace("_", " ").split(" ")[0]
    return next((kind for kind, known in VIEWS.items() if first in known), "")
