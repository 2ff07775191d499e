# Completes ./reproduce: commands, options, and overrides with the values that conf/ has.
_reproduce_words() {
    case $1 in
@WORDS@
        *) return 1 ;;
    esac
    printf '%s\n' $words
}

_reproduce_conf() {
    local program
    program=$(readlink -f "$(command -v -- "$1")" 2>/dev/null)
    if [ -d "${program%/*}/conf" ]; then printf '%s\n' "${program%/*}/conf"; else printf '%s\n' @ROOT@/conf; fi
}

_reproduce() {
    local words line current conf group known name done typed=()
    line=${COMP_LINE:0:COMP_POINT}
    current=${line##*[[:space:]]}
    conf=$(_reproduce_conf "$1")
    COMPREPLY=()
    if [[ $current != -* && $current == *=* ]]; then
        group=${current%%=*} known=${current#*=}
        done=""
        if [[ $known == *,* ]]; then done=${known%,*},; fi
        for name in "$conf/$group"/*.yaml; do
            name=${name##*/} name=${name%.yaml}
            if [[ -f $conf/$group/$name.yaml && $name == "${known##*,}"* ]]; then
                COMPREPLY+=("$done$name")
            fi
        done
        # Bash replaces what follows the last character of COMP_WORDBREAKS only.
        if [[ $COMP_WORDBREAKS != *=* ]]; then COMPREPLY=("${COMPREPLY[@]/#/$group=}"); fi
        return
    fi
    read -ra typed <<<"${line%"$current"}"
    typed=("${typed[@]:1}")
    name=""
    for known in "${typed[@]}"; do
        if [[ $known == -- ]]; then return; fi
        if [[ $known != -* && $known != *=* ]]; then
            if _reproduce_words "${name:+$name }$known" >/dev/null; then
                name=${name:+$name }$known
            fi
        fi
    done
    known=$(_reproduce_words "${name:-run}")
    if [[ ${#typed[@]} -eq 0 ]]; then known="@COMMANDS@ $known"; fi
    COMPREPLY=($(compgen -W "$known" -- "$current"))
    if [[ $known == *--site* && $current != -* ]]; then
        for group in "$conf"/*/; do
            group=${group%/} group=${group##*/}
            case $group in @HIDDEN@) continue ;; esac
            if [[ $group == "$current"* ]]; then
                COMPREPLY+=("$group=")
                compopt -o nospace 2>/dev/null
            fi
        done
    fi
}
complete -o bashdefault -o default -F _reproduce reproduce ./reproduce
