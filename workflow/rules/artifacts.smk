# What runs are made from: environments, weights, prompts, the description of the system.


rule environment:
    input:
        needs("environment"),
        code=sources("environment"),
    output:
        manifest=manifest("environment"),
    log:
        logfile("environment"),
    params:
        **arguments("environment"),
    message:
        "environment {wildcards.name}"
    shell:
        RUN


rule container:
    input:
        needs("container"),
        code=sources("container"),
    output:
        manifest=manifest("container"),
    log:
        logfile("container"),
    params:
        **arguments("container"),
    message:
        "container image {wildcards.name}"
    shell:
        RUN


rule model:
    input:
        needs("model"),
        code=sources("model"),
    output:
        manifest=manifest("model"),
    log:
        logfile("model"),
    params:
        **arguments("model"),
    message:
        "weights {wildcards.name}"
    shell:
        RUN


rule quantize:
    input:
        needs("quantize"),
        code=sources("quantize"),
    output:
        manifest=manifest("quantize"),
    log:
        logfile("quantize"),
    resources:
        **resources("quantize"),
    params:
        **arguments("quantize"),
    message:
        "quantize {wildcards.name}"
    shell:
        RUN


rule prune:
    input:
        needs("prune"),
        code=sources("prune"),
    output:
        manifest=manifest("prune"),
    log:
        logfile("prune"),
    resources:
        **resources("prune"),
    params:
        **arguments("prune"),
    message:
        "prune {wildcards.name}"
    shell:
        RUN


rule finetune:
    input:
        needs("finetune"),
        code=sources("finetune"),
    output:
        manifest=manifest("finetune"),
    log:
        logfile("finetune"),
    resources:
        **resources("finetune"),
    params:
        **arguments("finetune"),
    message:
        "fine-tune {wildcards.name}"
    shell:
        RUN


# Before anything else: what fails here spares the rest.
rule quick_run:
    input:
        needs("quick_run"),
        code=sources("quick_run"),
    output:
        manifest=manifest("quick_run"),
    log:
        logfile("quick_run"),
    priority: 40
    threads: WHOLE_MACHINE
    resources:
        **resources("quick_run"),
    params:
        **arguments("quick_run"),
    message:
        "quick run {wildcards.name}"
    shell:
        RUN


rule quick_check:
    input:
        needs("quick_check"),
        code=sources("quick_check"),
    output:
        manifest=manifest("quick_check"),
    log:
        logfile("quick_check"),
    priority: 50
    params:
        **arguments("quick_check"),
    message:
        "quick check {wildcards.name}"
    shell:
        RUN


rule dataset:
    input:
        needs("dataset"),
        code=sources("dataset"),
    output:
        manifest=manifest("dataset"),
    log:
        logfile("dataset"),
    params:
        **arguments("dataset"),
    message:
        "dataset {wildcards.name}"
    shell:
        RUN


rule describe:
    input:
        needs("describe"),
        code=sources("describe"),
    output:
        manifest=manifest("describe"),
    log:
        logfile("describe"),
    resources:
        **resources("describe"),
    params:
        **arguments("describe"),
    message:
        "describe system {wildcards.name}"
    shell:
        RUN
