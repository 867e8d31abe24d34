"""What ``cxr bundle show`` prints."""

import pytest

from cxr.bundle.format import describe, read_info
from cxr.errors import InputError
from cxr.pipeline.run_folder import SYNTHETIC

pytestmark = pytest.mark.long


def test_a_bundle_is_described_in_aligned_lines(tiny_bundle):
    lines = describe(tiny_bundle).splitlines()
    text = "\n".join(lines)
    assert len({line.index("  ") for line in lines if "  " in line}) >= 1
    words = [
        "phantom/tiny",
        "normal, covid, bacterial, viral",
        "mobilenetv2",
        "64 px",
        "accuracy",
        SYNTHETIC,
    ]
    for word in [*words, read_info(tiny_bundle)["fingerprint"]]:
        assert word in text


def test_a_bundle_that_was_not_evaluated_says_so(changeable):
    from cxr.bundle.format import write_info

    info = read_info(changeable)
    values = {key: info[key] for key in info if key not in ("format", "files", "fingerprint")}
    write_info(changeable, values | {"test": "not evaluated (scripts/evaluate.py)"})
    assert "not evaluated" in describe(changeable)


def test_a_changed_bundle_is_refused(changeable):
    (changeable / "MODEL_CARD.md").write_text("better than any doctor")
    with pytest.raises(InputError, match="was changed after the export"):
        describe(changeable)
