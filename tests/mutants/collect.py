"""What mutmut found for one module, as JSON; run by `python -m tests.mutants` in its copy."""

import json
import sys

from mutmut.mutation.data import SourceFileMutationData
from mutmut.mutation.diff_apply import get_diff_for_mutant
from mutmut.stats import status_by_exit_code


def main(module: str) -> int:
    data = SourceFileMutationData(path=module)
    data.load()
    found = []
    for name, code in data.exit_code_by_key.items():
        status = status_by_exit_code[code]
        function = name.split(".")[-1].rpartition("__mutmut_")[0].removeprefix("x")
        entry = {"status": status, "function": function.strip("_ǁ").replace("ǁ", ".")}
        if status != "killed":
            lines = get_diff_for_mutant(name, path=module).splitlines()[2:]
            entry["removed"] = [line[1:].strip() for line in lines if line.startswith("-")]
            entry["added"] = [line[1:].strip() for line in lines if line.startswith("+")]
        found.append(entry)
    if not found or any(m["status"] == "not checked" for m in found):
        print("no result", file=sys.stderr)
        return 1
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
