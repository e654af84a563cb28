#!/bin/sh
# On an upgrade the new package restarts it.
set -e
if [ "$1" = remove ] && [ -d /run/systemd/system ]; then
	systemctl disable --now kingbus.service
fi
