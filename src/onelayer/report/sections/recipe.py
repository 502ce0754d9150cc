"""The exact recipe, and how to repeat the run."""

import json
import shlex
from typing import Any

from onelayer.report.run import Run
from onelayer.report.section import Section


def applies(run: Run) -> bool:
    return True


def build(run: Run) -> Section:
    sessions = run.manifest["sessions"]
    return Section(
        "Recipe",
        "Every choice stands in the configuration below. Saved as config.json, it repeats the run: onelayer train "
        "--config config.json. With the same versions, on the same kind of machine, the result is the same to the bit.",
        facts=_facts(sessions[0]),
        listings={
            "How it was run" if len(sessions) == 1 else f"How it was run, in {len(sessions)} sessions": "\n".join(
                shlex.join(session["command"]) for session in sessions
            ),
            "Configuration (config.json)": run.config.to_json(),
            "Versions and machine (manifest.json)": json.dumps(run.manifest, indent=2, ensure_ascii=False),
        },
    )


def _facts(session: dict[str, Any]) -> dict[str, str]:
    versions = session["versions"]
    return {
        "onelayer": str(versions["onelayer"]),
        "NumPy": str(versions["numpy"]),
        "engine": str(session["engine"]),
        "processor": str(session["processor"]),
        "threads": str(session["threads"]),
        "started": str(session["started"])[:16].replace("T", " ") + " UTC",
    }
