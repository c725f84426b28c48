#!/bin/sh
# A direct method as a shell script: what it prints is the payload of the answer, its exit code the status
# (0 is 200, 65 is 400, 75 is 503, others 500).
#
#   iothub-service method dev1 uptime
set -eu

read -r seconds _ </proc/uptime
printf '{"seconds":%s,"device":"%s"}\n' "${seconds%.*}" "$IOTHUB_DEVICE_ID"
