#compdef reproduce
# Completes ./reproduce: commands, options, and overrides with the values that conf/ has.
_reproduce_words() {
    local words
    case $1 in
@WORDS@
        *) return 1 ;;
    esac
    print -r -- $words
}

_reproduce() {
    local program=${${(Q)words[1]/#\~/$HOME}:A} conf name known group
    local -a vocabulary groups found
    conf=${program:h}/conf
    [[ -d $conf ]] || conf=@ROOT@/conf
    if [[ $PREFIX != -* && $PREFIX == *=* ]]; then
        group=${PREFIX%%=*}
        found=($conf/$group/*.yaml(N:t:r))
        compset -P '*='
        compset -P '*,'
        compadd -a found
        return
    fi
    for known in "${(@)words[2,CURRENT-1]}"; do
        if [[ $known == -- ]]; then
            _files
            return
        fi
        if [[ $known != -* && $known != *=* ]]; then
            _reproduce_words "${name:+$name }$known" >/dev/null && name=${name:+$name }$known
        fi
    done
    vocabulary=(${=$(_reproduce_words "${name:-run}")})
    known="$vocabulary"
    if (( CURRENT == 2 )); then vocabulary=(@COMMANDS@ $vocabulary); fi
    compadd -a vocabulary
    if [[ $known == *--site* ]]; then
        groups=($conf/*(/N:t))
        groups=(${groups:#(@HIDDEN@)})
        compadd -S '=' -a groups
    fi
    _files
}
if (( $+functions[compdef] )); then compdef _reproduce reproduce ./reproduce; fi
