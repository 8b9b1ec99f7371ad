"""Labels: every kind has some, the longest wins, and masks are the models' own tokens."""

from __future__ import annotations

import pytest

from axtune.checkpoint.families import A_X_4_0
from axtune.privacy.kinds import KINDS, LABEL_OF_GROUP, LABELS, MASKS, VETO


def test_the_masks_are_the_models_own_tokens() -> None:
    assert set(MASKS.values()) == A_X_4_0.personal_data_tokens
    assert {label.kind for label in LABEL_OF_GROUP} == {*KINDS, VETO}


@pytest.mark.parametrize(
    ("text", "label", "kind"),
    [
        ("주민등록번호", "주민등록번호", "resident_reg"),
        ("주민 등록 번호", "주민 등록 번호", "resident_reg"),
        ("법인등록번호", "법인등록번호", VETO),
        ("운송장번호", "운송장번호", VETO),
        ("passport_number", "passport_number", "passport"),
        ("health_insurance_card_no", "health_insurance_card_no", "health_insurance"),
        ("account_id", "account_id", VETO),
        ("phone number", "phone number", "telephone"),
        ("pan", "pan", "credit_card"),
    ],
)
def test_the_longest_label_wins(text: str, label: str, kind: str) -> None:
    match = LABELS.search(text)
    assert match is not None
    assert match.lastindex is not None
    assert (match.group(), LABEL_OF_GROUP[match.lastindex - 1].kind) == (label, kind)
