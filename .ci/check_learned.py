"""Whether the demo in a short form learned, and did not collapse."""

import json
import pathlib
import sys

results = json.loads((pathlib.Path(sys.argv[1]) / "results.json").read_text("utf-8"))
auroc = results["summary"]["test_unseen"]["average"]["auroc"]["mean"]
collapsed = results["seeds"]["0"]["pretrain"]["collapsed"]
print(f"test AUROC {auroc:.3f}, collapsed: {collapsed}")
if auroc < 0.6 or collapsed:
    sys.exit("the short demo did not learn")
