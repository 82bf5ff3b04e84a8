#!/usr/bin/env bash
# Every long option that --help tells, of the three programs and of each of the client's commands, is in the man page.
# Usage: test_man_pages.sh FOLDER-OF-PROGRAMS FOLDER-OF-PAGES
set -euo pipefail
bin=$1 man=$2
failed=0 seen=0

check() { # PAGE COMMAND...: the options that `COMMAND... --help` tells are in the page
    local page=$1 help text option
    shift
    help=$("$bin/$1" "${@:2}" --help)
    text=$(sed 's/\\-/-/g' "$man/$page")
    for option in $(grep -oE -- '--[a-z][a-z0-9-]+' <<<"$help" | sort -u); do
        seen=$((seen + 1))
        grep -qE -- "(^|[^a-z-])$option([^a-z0-9-]|\$)" <<<"$text" && continue
        echo "$page does not tell $option, which \`$* --help\` does"
        failed=1
    done
}
commands() { # COMMAND...: those that its --help lists
    "$bin/$1" "${@:2}" --help | sed -n '/^Commands:/,/^$/ s/^  \([a-z]\+\) .*/\1/p'
}

check forerun-coordinator.1 forerun-coordinator
check forerun-worker.1 forerun-worker
check forerun.1 forerun
for command in $(commands forerun); do check forerun.1 forerun "$command"; done
for command in $(commands forerun model); do check forerun.1 forerun model "$command"; done
echo "$seen options of --help looked up"
[ $seen -gt 100 ] || { echo "that is too few: how --help looks has changed"; exit 1; }
exit $failed
