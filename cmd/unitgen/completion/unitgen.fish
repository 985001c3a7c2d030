# Completion of unitgen(1) for fish. unitgen itself knows the words.
function __unitgen_words
    set -l words (commandline -opc) (commandline -ct)
    set -e words[1]
    command unitgen completion words fish $words 2>/dev/null
end
complete -c unitgen -f -a '(__unitgen_words)'
