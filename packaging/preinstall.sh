#!/bin/sh
# The account that the service runs as; its home is where the data is.
set -e
if ! getent passwd kingbus >/dev/null; then
	useradd --system --user-group --home-dir /var/lib/kingbus --no-create-home --shell /usr/sbin/nologin kingbus
fi
