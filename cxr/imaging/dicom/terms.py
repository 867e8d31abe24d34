"""What header values mean to us. Only values listed here are ever shown or handed on.

A header field that should hold a code can hold anything, a name too; so a value leaves
only if DICOM defines it (PS3.3, C.7.3.1.1.1 modalities; PS3.16, annex L body parts;
PS3.3, C.8.7.1.1 and C.8.11.5 views) or if it is a number.
"""

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

FRONTAL_VIEWS = ("PA", "AP")
LATERAL_VIEWS = ("LL", "RL", "LAT", "LATERAL", "LLD", "RLD")
OTHER_VIEWS = ("RLO", "LLO", "LAO", "RAO", "LPO", "RPO", "OBL", "OBLIQUE", "LO", "RO")

SYNTAXES = {
    "1.2.840.10008.1.2": "Implicit VR Little Endian",
    "1.2.840.10008.1.2.1": "Explicit VR Little Endian",
    "1.2.840.10008.1.2.1.99": "Deflated Explicit VR Little Endian",
    "1.2.840.10008.1.2.2": "Explicit VR Big Endian",
    "1.2.840.10008.1.2.4.50": "JPEG Baseline",
    "1.2.840.10008.1.2.4.51": "JPEG Extended",
    "1.2.840.10008.1.2.4.57": "JPEG Lossless",
    "1.2.840.10008.1.2.4.70": "JPEG Lossless, first-order prediction",
    "1.2.840.10008.1.2.4.80": "JPEG-LS Lossless",
    "1.2.840.10008.1.2.4.81": "JPEG-LS Near-Lossless",
    "1.2.840.10008.1.2.4.90": "JPEG 2000 Lossless",
    "1.2.840.10008.1.2.4.91": "JPEG 2000",
    "1.2.840.10008.1.2.4.201": "High-Throughput JPEG 2000 Lossless",
    "1.2.840.10008.1.2.4.202": "High-Throughput JPEG 2000 Lossless RPCL",
    "1.2.840.10008.1.2.4.203": "High-Throughput JPEG 2000",
    "1.2.840.10008.1.2.5": "RLE Lossless",
}
"""Transfer syntaxes that are read (PS3.6, annex A)."""
IMPLICIT, DEFLATED = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1.99"
BIG_ENDIAN, RLE = "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.5"
NATIVE = (IMPLICIT, "1.2.840.10008.1.2.1", DEFLATED, BIG_ENDIAN)

GRAY = ("MONOCHROME1", "MONOCHROME2")
COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")


def chest_part(part: str) -> bool | None:
    """Tell whether a body part is the chest; None where the term is not known."""
    if any(word in part for word in CHEST_PARTS):
        return True
    return False if part.replace(" ", "").replace("_", "") in OTHER_PARTS else None


def view(position: str) -> str:
    """Return frontal, lateral, other or, for a term that is not known, an empty text."""
    first = position.replace("_", " ").split(" ")[0]
    for kind, known in (
        ("frontal", FRONTAL_VIEWS),
        ("lateral", LATERAL_VIEWS),
        ("other", OTHER_VIEWS),
    ):
        if first in known:
            return kind
    return ""
