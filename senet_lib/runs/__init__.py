"""What lies on disk: records, weights, studies, locks."""

from pathlib import Path

RECORD, HISTORY, LOGITS, FAILED = "record.json", "history.csv", "test_logits.npz", "failed.json"
DEFAULT_ROOT, LOGS = Path("outputs/runs"), Path("outputs/logs")
PUBLISHED = Path("outputs/published")
REPORTS = (Path("outputs/reports"), PUBLISHED / "reports")
