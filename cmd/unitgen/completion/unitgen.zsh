#compdef unitgen
# Completion of unitgen(1) for zsh. unitgen itself knows the words.
_unitgen() {
    local -a whole shown open
    local line
    for line in "${(@f)$(command unitgen completion words zsh "${(@Q)words[2,CURRENT]}" 2>/dev/null)}"; do
        case ${line%%$'\t'*} in
        '') ;;
        *[=/]) open+=("${line%%$'\t'*}") ;;
        *) whole+=("${line%%$'\t'*}"); shown+=("${line/$'\t'/  -- }") ;;
        esac
    done
    (( $#whole )) && compadd -l -d shown -a whole
    (( $#open )) && compadd -S '' -a open
}
if [[ ${funcstack[1]} == _unitgen ]]; then
    _unitgen "$@"
else
    compdef _unitgen unitgen
fi
