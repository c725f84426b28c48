#!/usr/bin/env python3
"""A long-lived handler: one line of JSON for each event on standard input, one for each answer on standard output.

    [[handlers]]
    name = "counter"
    on = "command"
    mode = "stream"
    exec = ["/etc/iothub-device/handlers/counter-stream.py"]

It keeps what a program that is started for each command would have to read again each time: here, a count.
"""
import json
import sys


def answer(message: dict) -> None:
    print(json.dumps(message), flush=True)  # unflushed, the answer would wait for the buffer to fill


total = 0
for line in sys.stdin:  # ends when the agent closes it
    message = json.loads(line)
    if message.get("type") == "ping":
        answer({"type": "pong"})
    elif message.get("type") == "cancel":
        pass  # its time is over; this one answers at once and has nothing to cancel
    else:
        step = message.get("body")
        if isinstance(step, int):
            total += step
            answer({"id": message["id"], "outcome": "accept", "reply": {"total": total}})
        else:
            answer({"id": message["id"], "outcome": "reject", "reason": "the body is to be a whole number, as JSON"})
