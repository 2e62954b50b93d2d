"""``python -m tools.teaching`` writes the times in notebooks/README.md, docs/answers.md and docs/handout.html anew."""

from tools.lab import ROOT
from tools.teaching import answers, handout, times

for path, text in (
    (ROOT / "docs" / "answers.md", answers.key()),
    (ROOT / "docs" / "handout.html", handout.page()),
    (times.README, times.renewed(times.README.read_text(encoding="utf-8"))),
):
    path.write_text(text, encoding="utf-8")
    print(path.relative_to(ROOT))
