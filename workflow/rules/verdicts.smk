# Verdicts, each as soon as its run is there. One that fails publishes nothing and stops the flow.


rule compliance_check:
    input:
        needs("compliance_check"),
        code=sources("compliance_check"),
    output:
        manifest=manifest("compliance_check"),
    log:
        logfile("compliance_check"),
    priority: 50
    params:
        **arguments("compliance_check"),
    message:
        "compliance of {wildcards.cell}"
    shell:
        RUN


rule accuracy_check:
    input:
        needs("accuracy_check"),
        code=sources("accuracy_check"),
    output:
        manifest=manifest("accuracy_check"),
    log:
        logfile("accuracy_check"),
    priority: 50
    resources:
        **resources("accuracy_check"),
    params:
        **arguments("accuracy_check"),
    message:
        "accuracy of {wildcards.cell}"
    shell:
        RUN


rule performance_check:
    input:
        needs("performance_check"),
        code=sources("performance_check"),
    output:
        manifest=manifest("performance_check"),
    log:
        logfile("performance_check"),
    priority: 50
    params:
        **arguments("performance_check"),
    message:
        "validity of {wildcards.cell}"
    shell:
        RUN
