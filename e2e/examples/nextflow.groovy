// Checks deploy/examples/nextflow.config with Groovy, in which Nextflow is written: reads the file,
// and evaluates the directive `pod` for the second attempt of a task, as Nextflow does (TaskConfig,
// LazyMap: a closure with the task's context as its delegate).

def config = new ConfigSlurper().parse(new File(args[0]).toURI().toURL())
def directive = config.process.podbeat.pod
if (!(directive instanceof Closure)) {
    System.err.println "the directive pod is no closure, so it has the same value for all tasks: ${directive}"
    System.exit(1)
}
directive.delegate = [run: 'trn.42', task: [attempt: 2]]
directive.resolveStrategy = Closure.DELEGATE_FIRST
def labels = [:]
def annotations = [:]
directive.call().each { option ->
    if (option.label) labels[option.label as String] = option.value as String
    else annotations[option.annotation as String] = option.value as String
}
def expected = [['podbeat.dev/inject': 'true'], ['podbeat.dev/task-run-id': 'trn.42', 'podbeat.dev/job-retry-count': '1']]
if ([labels, annotations] != expected) {
    System.err.println "expected ${expected}: ${[labels, annotations]}"
    System.exit(1)
}
println "a second attempt has ${labels} and ${annotations}"
