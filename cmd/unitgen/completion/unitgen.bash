# Completion of unitgen(1) for bash. unitgen itself knows the words; COMP_WORDS has "=" and ":" as words of their own.
_unitgen() {
    local word
    COMPREPLY=()
    while IFS= read -r word; do
        COMPREPLY+=("$word")
    done < <(command unitgen completion words bash "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[=/] ]]; then
        compopt -o nospace
    fi
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} != -* ]]; then
        printf -v 'COMPREPLY[0]' '%q' "${COMPREPLY[0]}"
    fi
} 2>/dev/null
# Not "@" too, which stands in the names of instances and else begins host names.
COMP_WORDBREAKS=${COMP_WORDBREAKS//@/}
complete -F _unitgen unitgen
