# LoadGen runs. Each owns the machine (threads: all of it) and is never retried: a second try would
# hide an unstable system. One exception (steps/commands/results.py): a run that is shorter than the
# rules' and INVALID in a disturbed window is set aside and measured once more, and both are counted.
# What can fail in seconds goes first.


rule compliance_run:
    input:
        needs("compliance_run"),
        code=sources("compliance_run"),
    output:
        manifest=manifest("compliance_run"),
    log:
        logfile("compliance_run"),
    priority: 30
    threads: WHOLE_MACHINE
    resources:
        **resources("compliance_run"),
    params:
        **arguments("compliance_run"),
    message:
        "compliance run {wildcards.cell}"
    shell:
        RUN


rule accuracy_run:
    input:
        needs("accuracy_run"),
        code=sources("accuracy_run"),
    output:
        manifest=manifest("accuracy_run"),
    log:
        logfile("accuracy_run"),
    priority: 20
    threads: WHOLE_MACHINE
    resources:
        **resources("accuracy_run"),
    params:
        **arguments("accuracy_run"),
    message:
        "accuracy run {wildcards.cell}"
    shell:
        RUN


rule performance_run:
    input:
        needs("performance_run"),
        code=sources("performance_run"),
    output:
        manifest=manifest("performance_run"),
    log:
        logfile("performance_run"),
    priority: 10
    threads: WHOLE_MACHINE
    resources:
        **resources("performance_run"),
    params:
        **arguments("performance_run"),
    message:
        "performance run {wildcards.cell}"
    shell:
        RUN
