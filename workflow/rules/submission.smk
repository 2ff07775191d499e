# The submission tree, and the statement of what it is made from. The page that people read is no job:
# ./reproduce makes it from whatever there is.


rule submission:
    input:
        needs("submission"),
        code=sources("submission"),
    output:
        manifest=manifest("submission"),
    log:
        logfile("submission"),
    params:
        **arguments("submission"),
    message:
        "submission tree of {wildcards.experiment}"
    shell:
        RUN


rule provenance:
    input:
        needs("provenance"),
        code=sources("provenance"),
    output:
        manifest=manifest("provenance"),
    log:
        logfile("provenance"),
    params:
        **arguments("provenance"),
    message:
        "provenance of {wildcards.experiment}"
    shell:
        RUN
