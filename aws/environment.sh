# Sourced by bash before `ray start` (cluster.yaml): the lines of ~/synthclones/cluster.env for Ray and all it starts.
# Each is taken as it stands, as `kubectl create secret --from-env-file` takes the same file. A shell that ran the file
# would change `a&b` and `$$`, and say pieces of passwords in the log of `ray up`; so a line is told by its number alone.
_number=0
while IFS= read -r _line || [ -n "$_line" ]; do
  _number=$((_number + 1))
  _line=${_line%$'\r'}
  [ $_number -gt 1 ] || _line=${_line#$'\xef\xbb\xbf'}
  _line=${_line#"${_line%%[![:space:]]*}"}
  if [[ $_line =~ ^[A-Za-z_][A-Za-z0-9_]*= ]]; then
    export "$_line"
  elif [[ -n $_line && $_line != \#* ]]; then
    echo "line $_number of cluster.env is no NAME=value and is left out" >&2
  fi
done < ~/synthclones/cluster.env
unset _line _number
# Without a mode Ray takes a token that happens to lie on a node (~/.ray/auth_token, left by any Ray of one machine), and
# the others could not join; cluster.env may say token.
export RAY_AUTH_MODE=${RAY_AUTH_MODE:-disabled}
