#!/bin/sh
set -e
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload
fi
if [ "$1" = purge ] && [ -n "$(ls -A /var/lib/kingbus 2>/dev/null)" ]; then
	echo "kingbus: /var/lib/kingbus holds the binlog and stays; remove it yourself when nobody needs it" >&2
fi
