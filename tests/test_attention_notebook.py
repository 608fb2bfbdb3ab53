"""The lesson on attention runs without CIFAR-10 and says what its equations give."""

import re

import nbformat

from senet_lib.report.batch import execute

FAST = {"steps": 3, "num_images": 20, "channels": 3}


def test_the_lesson_runs_without_cifar10_and_its_numbers_are_right(tmp_path, monkeypatch):
    monkeypatch.setenv("SENET_DATA", str(tmp_path / "nothing"))
    out = execute("attention", tmp_path / "a.ipynb", FAST, html=tmp_path / "a.html")
    cells = [c for c in nbformat.read(out, as_version=4).cells if c.cell_type == "code"]
    given = [output["data"] for cell in cells for output in cell.outputs if "data" in output]
    answer = next(data["text/markdown"] for data in reversed(given) if "text/markdown" in data)
    assert float(re.search(r"differ by at most (\S+)\. ", answer)[1]) < 1e-6
    weights = int(re.search(r"adds ([\d,]+) weights", answer)[1].replace(",", ""))
    assert weights == 3 * 2 * (16 * 1 + 32 * 2 + 64 * 4)  # 3 blocks a stage, 2 C max(C // 16, 1)
    low, high = map(float, re.search(r"between (0\.\d+) and (0\.\d+)\.", answer).groups())
    assert 0 < low < high < 1
    assert sum("image/svg+xml" in data for data in given) == 5  # none of them twice
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert page.count("<math") > 10
    assert "$" not in re.sub(r"<(pre|script|style)\b.*?</\1>", "", page, flags=re.DOTALL)
