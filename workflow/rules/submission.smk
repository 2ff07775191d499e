# The submission tree, the statement of what it is made from, and the page that people read.


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


rule report:
    input:
        needs("report"),
        code=sources("report"),
    output:
        manifest=manifest("report"),
    log:
        logfile("report"),
    params:
        **arguments("report"),
    message:
        "report of {wildcards.experiment}"
    shell:
        RUN
