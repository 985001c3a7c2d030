#!/bin/sh
# Two processes: one works in the background, one serves.
while sleep 60; do echo "cleaned up"; done &
python3 -m http.server 8000
