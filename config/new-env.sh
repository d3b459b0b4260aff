#!/bin/sh
# Writes config/.env, which config/compose.yaml reads: fresh secrets, readable by you alone. It never overwrites one.
set -eu

target="${1:-$(dirname "$0")/.env}"
secret() { od -A n -t x1 -N "$1" /dev/urandom | tr -d ' \n'; }

if [ -e "$target" ]; then
    echo "$target is there already: its secrets belong to the data of this installation, delete both or none" >&2
    exit 1
fi
umask 077
cat >"$target" <<SECRETS
# Made by config/new-env.sh. Keep it with your backups: without it, links handed out before stop working.
MATYAN_SECRETS_KEYS=$(secret 32)
MATYAN_S3_ACCESS_KEY=matyan-$(secret 4)
MATYAN_S3_SECRET_KEY=$(secret 24)
GRAFANA_PASSWORD=$(secret 12)
SECRETS
echo "wrote $target"
