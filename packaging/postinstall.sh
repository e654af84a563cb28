#!/bin/sh
set -e
chgrp kingbus /etc/kingbus /etc/kingbus/kingbus.yaml
install -d -o kingbus -g kingbus -m 0750 /var/lib/kingbus
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload
	systemctl try-restart kingbus.service # only if it ran: an upgrade
fi
