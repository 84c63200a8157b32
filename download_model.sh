#!/bin/sh
# Download the published weights of SyncNet and S3FD, and the demo clip, to their places in this folder.
#
#     sh download_model.sh
#
# Needs curl or wget. Keeps files that are already complete and resumes interrupted downloads; a file gets its final
# name only after its size and SHA-256 have been checked. Exit code 1 if a file could not be downloaded.
#
#     SYNCNET_MIRROR   space-separated URLs of folders with the same files, tried before the URLs of the table
#     SYNCNET_TIMEOUT  seconds to wait for a connection (20)
#     SYNCNET_FILES    file with another table (for tests)

timeout=${SYNCNET_TIMEOUT:-20}
stalled=30 # seconds without data after which a download ends
origin=www.robots.ox.ac.uk/~vgg/software/lipsync/data

# path, bytes, SHA-256, addresses
table() {
    if [ -n "${SYNCNET_FILES:-}" ]; then
        cat -- "$SYNCNET_FILES"
        return
    fi
    cat <<TABLE
data/syncnet_v2.model 54573114 961e8696f888fce4f3f3a6c3d5b3267cf5b343100b238e79b2659bff2c605442 http://$origin/syncnet_v2.model https://$origin/syncnet_v2.model
data/example.avi 1111536 1724121b3a50141cfc9e77c034f7de914024d015b92762ae12d3e1a7151b8621 http://$origin/example.avi https://$origin/example.avi
detectors/s3fd/weights/sfd_face.pth 89844381 d54a87c2b7543b64729c9a25eafd188da15fd3f6e02f0ecec76ae1b30d86c491 https://$origin/sfd_face.pth http://$origin/sfd_face.pth
TABLE
}

say() {
    printf '%s\n' "$*" >&2
}

have() {
    command -v "$1" >/dev/null 2>&1
}

size_of() {
    if [ -f "$1" ]; then
        wc -c <"$1" | tr -d ' '
    else
        echo 0
    fi
}

sha256_of() {
    if have sha256sum; then
        sha256sum <"$1"
    elif have shasum; then
        shasum -a 256 <"$1"
    elif have openssl; then
        openssl dgst -sha256 -r <"$1"
    else
        python3 -c 'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())' <"$1"
    fi | cut -d ' ' -f 1
}

is_right() { # file bytes sha256
    [ -f "$1" ] && [ "$(size_of "$1")" -eq "$2" ] && [ "$(sha256_of "$1")" = "$3" ]
}

server_of() { # scheme and host, because one port may be closed and the other open
    printf '%s\n' "$1" | sed 's|^\([a-z]*://[^/]*\).*|\1|'
}

# Append the rest of the file at a URL to a local file. Sets trouble: none, unreachable, no_resume or failed.
transfer() { # address file
    if [ "$client" = curl ]; then
        curl --fail --location "$meter" --show-error --connect-timeout "$timeout" --speed-limit 1 \
            --speed-time "$stalled" --continue-at - --output "$2" "$1" </dev/null
        case $? in
            0) trouble=none ;;
            5 | 6 | 7) trouble=unreachable ;;
            28) [ -s "$2" ] && trouble=failed || trouble=unreachable ;; # timeout of the connection or of the data
            33 | 36) trouble=no_resume ;;
            *) trouble=failed ;;
        esac
    elif [ "$client" = wget ]; then # starts over by itself if a server cannot resume
        wget --no-verbose --tries=1 --dns-timeout="$timeout" --connect-timeout="$timeout" \
            --read-timeout="$stalled" --continue --output-document="$2" "$1" </dev/null
        case $? in
            0) trouble=none ;;
            4) trouble=unreachable ;;
            *) trouble=failed ;;
        esac
    else # BusyBox has short flags and an uninformative exit code
        # shellcheck disable=SC2086 # $limit is empty if this build lacks the flag
        if answer=$(wget -q $limit -c -O "$2" "$1" 2>&1 </dev/null); then
            trouble=none
            return
        fi
        say "$answer"
        case $answer in
            *"bad address"* | *"can't connect"*) trouble=unreachable ;;
            *) trouble=failed ;;
        esac
    fi
}

# Download from one URL into a part file; succeeds if the result is the published file.
fetch_from() { # address part bytes sha256
    while :; do
        before=$(size_of "$2")
        [ "$before" -eq 0 ] || say "  going on at byte $before of $3"
        transfer "$1" "$2"
        after=$(size_of "$2")
        if is_right "$2" "$3" "$4"; then
            return 0
        fi
        case $trouble in
            none)
                say "  not the published file ($after bytes of $3, or other content): thrown away"
                rm -f -- "$2"
                ;;
            no_resume)
                say "  this server cannot go on half-way: from the beginning"
                rm -f -- "$2"
                ;;
            *)
                if [ "$after" -gt "$before" ] && [ "$after" -lt "$3" ]; then
                    say "  interrupted at byte $after of $3"
                    continue
                fi
                [ "$trouble" != unreachable ] || unreachable="$unreachable $(server_of "$1")"
                return 1
                ;;
        esac
        # the existing part may be damaged: try once more without it
        [ "$before" -gt 0 ] || return 1
    done
}

# Download one file from the first URL that has it.
fetch() { # path bytes sha256 addresses...
    path=$1 bytes=$2 sha256=$3
    shift 3
    if is_right "$path" "$bytes" "$sha256"; then
        say "$path: is there and right"
        return 0
    fi
    part=$path.part
    # in a subshell, because a failed redirection of a special built-in ends the shell
    if ! mkdir -p -- "$(dirname -- "$path")" || ! (: >>"$part") 2>/dev/null; then
        say "$path: cannot write there"
        return 1
    fi
    if [ "$(size_of "$part")" -ge "$bytes" ] && ! is_right "$part" "$bytes" "$sha256"; then
        : >"$part"
    fi
    mirrors=
    for folder in ${SYNCNET_MIRROR:-}; do
        mirrors="$mirrors ${folder%/}/${path##*/}"
    done
    for address in $mirrors "$@"; do
        if is_right "$part" "$bytes" "$sha256"; then
            break
        fi
        case " $unreachable " in
            *" $(server_of "$address") "*) continue ;;
        esac
        say "$path: from $address"
        fetch_from "$address" "$part" "$bytes" "$sha256"
    done
    if ! is_right "$part" "$bytes" "$sha256"; then
        [ -s "$part" ] || rm -f -- "$part"
        say "$path: not downloaded ($bytes bytes, SHA-256 $sha256)"
        return 1
    fi
    if [ -e "$path" ]; then
        say "$path: what was there is not the published file: kept as $path.old"
        mv -f -- "$path" "$path.old" || return 1
    fi
    mv -f -- "$part" "$path" && say "$path: done"
}

main() {
    CDPATH="" cd -- "$(dirname -- "$0")" || return 1
    if have curl; then
        client=curl
        meter=--silent
        [ -t 2 ] && meter=--progress-bar
    elif ! have wget; then
        say "download_model.sh: needs curl or wget: install one (apt install curl)"
        return 1
    elif wget --version 2>/dev/null | grep -q 'GNU Wget'; then
        client=wget
    else
        client=busybox
        limit=
        wget --help 2>&1 | grep -q -e '-T SEC' && limit="-T $timeout"
    fi
    if ! have sha256sum && ! have shasum && ! have openssl && ! have python3; then
        say "download_model.sh: needs sha256sum, shasum, openssl or python3 to check what it downloads: install one"
        return 1
    fi
    unreachable=
    missing=0
    rows=$(table) || return 1
    while read -r path bytes sha256 addresses; do
        # shellcheck disable=SC2086 # $addresses is a list of words
        [ -z "$path" ] || fetch "$path" "$bytes" "$sha256" $addresses || missing=$((missing + 1))
    done <<ROWS
$rows
ROWS
    if [ "$missing" -gt 0 ]; then
        say "download_model.sh: $missing missing: run this again later, name a mirror (SYNCNET_MIRROR=address), or put" \
            "the files there yourself"
        return 1
    fi
    say "All there. The weights are for research only: see LICENSE.md."
}

main
