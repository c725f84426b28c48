#!/usr/bin/env python3
"""A command handler in Python that replies: what it prints goes back as telemetry, if the configuration says
`reply = true`, with the command's message id as correlation id.

    iothub-service send dev1 --prop command=diagnose --data '{"paths":["/","/tmp"]}'
"""
import json
import os
import shutil
import sys

EX_DATAERR = 65  # reject: the message is wrong
EX_TEMPFAIL = 75  # release: the hub delivers it again


def main() -> int:
    try:
        paths = json.load(sys.stdin)["paths"]
        if not all(isinstance(path, str) for path in paths):
            raise TypeError("paths are strings")
    except (ValueError, KeyError, TypeError) as error:
        print(f"not a diagnose command: {error}", file=sys.stderr)
        return EX_DATAERR
    try:
        free = {path: shutil.disk_usage(path).free for path in paths}
    except FileNotFoundError as error:
        print(f"no such path: {error.filename}", file=sys.stderr)
        return EX_DATAERR
    except OSError as error:
        print(f"<4>try again: {error}", file=sys.stderr)
        return EX_TEMPFAIL
    json.dump({"free": free, "load": os.getloadavg()[0], "attempt": int(os.environ["IOTHUB_ATTEMPT"])}, sys.stdout)
    return 0


sys.exit(main())
