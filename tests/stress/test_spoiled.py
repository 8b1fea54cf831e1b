"""A published file with each key spoiled in each way is converted rightly, or refused."""

from collections import Counter

from tests.support.spoiled import WAYS, trial


def test_no_spoiled_key_ends_in_a_traceback_or_a_wrong_model(make, tower_folders, tmp_path):
    tried = trial(make, tower_folders, tmp_path)
    converted = Counter()
    for name in tried.state:
        for way in WAYS:
            converted[way] += tried(name, way)
    assert not converted["missing"]
    assert not converted["None"]
    assert converted["half precision"]
