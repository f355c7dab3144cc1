# From here on the script is the same for every bundle. It needs only bash 3.2 and what comes with macOS.

fail() {
  printf 'error: %s\n' "$1" >&2
  [ -z "${2:-}" ] || printf 'hint: %s\n' "$2" >&2
  exit "${3:-1}"
}

sha256() {
  if command -v shasum >/dev/null; then shasum -a 256 <"$1"; else sha256sum <"$1"; fi | cut -c 1-64
}

hexadecimal() { od -An -v -tx1 <"$1" | tr -d ' \n'; }

# Bytes of all files below a folder.
total() { find "$1" -type f -exec wc -c {} \; | awk '{ sum += $1 } END { printf "%.0f", sum }'; }

json_text() { printf '"%s"' "$(printf '%s' "$1" | LC_ALL=C tr -d '\000-\037' | LC_ALL=C sed 's/[\\"]/\\&/g')"; }

# Ends the compile, with everything that it started.
stop() {
  if [ -n "$child" ]; then
    kill -TERM -- "-$child" 2>/dev/null || :
    for _ in 1 2 3 4 5 6 7 8 9 10; do
      kill -0 -- "-$child" 2>/dev/null || break
      sleep 0.2
    done
    kill -KILL -- "-$child" 2>/dev/null || :
    child=''
  fi
}

clean() {
  stop
  [ -z "$partial" ] || rm -rf -- "$partial"
}

find_compiler() {
  if ! compiler=$("${xcrun[@]}" --find coreai-build 2>/dev/null); then
    # The cache can predate the component's installation.
    xcrun+=(--no-cache)
    compiler=$("${xcrun[@]}" --find coreai-build 2>&1) ||
      fail "${xcrun[0]} does not find coreai-build: $compiler" "$toolchain_hint"
  fi
  version=$("$compiler" --version 2>/dev/null | sed -n '/./{p;q;}')
  [ -n "$version" ] || fail "$compiler --version printed no version" "$toolchain_hint" 2
}

check_source() {
  [ -f "$source/main.mlirb" ] || fail "$source/main.mlirb is missing" "$place_hint"
  local found
  found=$(sha256 "$source/main.mlirb")
  [ "$found" = "$main_sha256" ] ||
    fail "$source/main.mlirb has SHA-256 $found, expected $main_sha256" 'copy the bundle again, or write the script again for it'
  [ "$(hexadecimal "$source/main.hash")" = "$main_sha256" ] ||
    fail "$source/main.hash does not match main.mlirb" 'copy the bundle again'
}

check_space() {
  local available
  available=$(df -Pk "$output" | awk 'NR == 2 { print $4 }')
  [ "$available" -ge "$needed_kilobytes" ] ||
    fail "$output has $available KB free, but compiling needs about $needed_kilobytes KB" 'free some space'
}

# Prints what is wrong with the artifact in $1; nothing if it is complete.
defects() {
  local program="main-$architecture.mlirb" delegates="main-$architecture-delegates" name
  if [ ! -s "$1/$program" ]; then
    echo "$program is missing or empty"
  elif [ "$(hexadecimal "$1/main.hash" 2>/dev/null)" != "$(sha256 "$1/$program")" ]; then
    echo "main.hash is not the SHA-256 of $program"
  elif [ "$source/main.mlirb" -nt "$1/$program" ]; then
    echo "$program is older than its source"
  fi
  for name in "$1"/main-*; do
    case ${name##*/} in
      "$program" | "$delegates") ;;
      *) echo "${name##*/} is for another architecture, not $architecture" ;;
    esac
  done
  [ -n "$(find "$1/$delegates" -type f -size +0 2>/dev/null | head -n 1)" ] || echo "$delegates/ is missing or empty"
  for name in metadata.json stats.json; do
    [ "$(head -c 1 "$1/$name" 2>/dev/null)" = '{' ] || echo "$name is missing or not a JSON object"
  done
  [ -z "$(find "$1" -type l | head -n 1)" ] || echo 'it holds symbolic links'
  [ "$(total "$1")" -ge "$least_bytes" ] || echo "it has less than $least_bytes bytes: weights are missing"
}

quote_log() {
  printf 'the compiler printed, at the end:\n' >&2
  tail -n 20 "$log" | LC_ALL=C tr -d '\000-\010\013-\037' | LC_ALL=C sed 's/^/  | /' >&2
}

record() {
  printf '{\n  "record": 1,\n  "compiler": %s,\n  "options": [' "$(json_text "$version")"
  local separator='' option
  for option in "${options[@]}"; do
    printf '%s%s' "$separator" "$(json_text "$option")"
    separator=', '
  done
  printf '],\n  "architecture": %s,\n  "source_main_sha256": "%s"' "$(json_text "$architecture")" "$main_sha256"
  printf ',\n  "program_sha256": "%s"' "$(sha256 "$1/main-$architecture.mlirb")"
  printf ',\n  "seconds": %s,\n  "host": %s\n}\n' "$2" "$(json_text "$(uname -srm) $(sw_vers -productVersion 2>/dev/null)")"
}

run_compiler() {
  set -m
  "${xcrun[@]}" coreai-build compile "$source" --output "$partial" "${options[@]}" >"$log" 2>&1 </dev/null &
  child=$!
  set +m
  local started=$SECONDS
  while kill -0 "$child" 2>/dev/null; do
    if [ $((SECONDS - started)) -ge "$limit_seconds" ]; then
      stop
      quote_log
      fail "coreai-build was stopped for $architecture after $limit_seconds seconds"
    fi
    sleep 0.2
  done
  local status=0
  wait "$child" || status=$?
  child=''
  if [ "$status" -ne 0 ]; then
    quote_log
    fail "coreai-build failed for $architecture (exit code $status)" "$(hint_from_log)" 2
  fi
}

hint_from_log() {
  if grep -q 'Metal Toolchain' "$log"; then echo "$toolchain_hint"; fi
  if grep -q 'No space left on device' "$log"; then echo 'free some space'; fi
}

compile() {
  local name="$stem.$architecture.aimodelc" started=$SECONDS wrong
  options=(--platform "$platform" --architecture "$architecture" "${common_options[@]}")
  local kept="$output/$stem.$architecture.compile.json"
  if [ -f "$kept" ] && [ -d "$output/$name" ] && [ -z "$(defects "$output/$name")" ] &&
    grep -qF "\"compiler\": $(json_text "$version")" "$kept" && grep -qF "$main_sha256" "$kept"; then
    echo "$output/$name is up to date"
    return
  fi
  if [ -e "$output/$name" ] && [ ! -f "$output/$name/main.hash" ]; then
    fail "$output/$name is not an artifact, so it is not replaced" 'move it away or give another output folder'
  fi
  partial="$output/.$stem.$architecture.partial"
  rm -rf -- "$partial"
  mkdir -- "$partial"
  log="$partial/compile.log"
  echo "compiling for $architecture with $version"
  run_compiler
  if [ ! -d "$partial/$name" ]; then
    quote_log
    fail "coreai-build exited 0 but wrote no $name" "$(hint_from_log)" 2
  fi
  wrong=$(defects "$partial/$name")
  if [ -n "$wrong" ]; then
    quote_log
    fail "coreai-build exited 0 but $name is not usable: $wrong" "$(hint_from_log)" 2
  fi
  record "$partial/$name" $((SECONDS - started)) >"$partial/record"
  rm -rf -- "${output:?}/$name"
  mv -- "$partial/$name" "$output/$name"
  mv -- "$partial/record" "$kept"
  rm -rf -- "$partial"
  partial=''
  echo "wrote $output/$name"
}

main() {
  local bundle=${1:-$(dirname -- "$0")/$bundle_name}
  xcrun=("${XCRUN:-xcrun}")
  output=${2:-$PWD}
  source="$bundle/$stem.aimodel"
  child='' partial='' log=''
  trap clean EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  find_compiler
  check_source
  mkdir -p -- "$output"
  check_space
  for architecture in "${architectures[@]}"; do
    compile
  done
  echo 'done: copy the .aimodelc folders and the .compile.json files to where the bundle is, and run there:'
  for architecture in "${architectures[@]}"; do
    echo "  coreai-bundle aotc BUNDLE --arch $architecture --artifact $stem.$architecture.aimodelc"
  done
}

# The last line, so that a script that was cut off does nothing.
main "$@"
