// What a compiler would say about names: unknown, unused, doubled, and inputs and outputs of modules that do not meet.

import { posix } from 'node:path'
import { Unknown, outcomes } from './bicep.mjs'

// Namespaces, and the functions of the language that the files use; a new one is added here after a look at its documentation.
const known = new Set(`az sys any concat contains deployer empty environment fail filter guid int join last length loadTextContent map max min
  replace resourceGroup split string subscription subscriptionResourceId substring tenant toLower toUpper trim union uniqueString
  allowed description maxLength maxValue metadata minLength minValue sealed secure`.split(/\s+/))

/** checkSyntax reports what the grammar cannot read. */
export function checkSyntax(project) {
  return project.files.flatMap(file => file.syntaxErrors.map(error => ({ where: `${file.name}:${error.line}`, message: error.message })))
}

/** checkNames reports names that nothing declares, and names and properties that are declared twice. */
export function checkNames(project) {
  const findings = []
  for (const file of project.files) {
    for (const use of file.uses) {
      const declared = file.parameters.has(use.name) || file.variables.has(use.name) || file.types.has(use.name) || file.locals.has(use.name)
      if (!declared && !known.has(use.name)) {
        findings.push({ where: `${file.name}:${use.line}`, message: `nothing declares ${use.name}` })
      }
    }
    for (const { name, line } of file.duplicates) {
      findings.push({ where: `${file.name}:${line}`, message: `${name} is declared twice` })
    }
  }
  return findings
}

/** checkUnused reports parameters, variables and resources that are there already, which nothing uses. */
export function checkUnused(project) {
  const findings = []
  for (const file of project.files) {
    const used = new Set(file.uses.map(use => use.name))
    const idle = [...file.parameters.values(), ...file.variables.values(), ...file.resources.filter(resource => resource.existing)]
    for (const declaration of idle) {
      if (!used.has(declaration.name)) {
        findings.push({ where: `${file.name}:${declaration.line}`, message: `${declaration.name} is not used` })
      }
    }
  }
  return findings
}

/** checkModules compares what modules are given with what they take, and what is read of them with what they give. */
export function checkModules(project) {
  const findings = []
  const called = new Set()
  for (const file of project.files) {
    const modules = new Map()
    for (const call of file.modules) {
      const report = message => findings.push({ where: `${file.name}:${call.line}`, message: `${call.name}: ${message}` })
      const path = posix.join(posix.dirname(file.name), call.source)
      const target = project.file(path)
      if (!target) {
        report(`there is no ${path}`)
        continue
      }
      called.add(target)
      modules.set(call.name, target)
      checkInputs(call.params, target, report)
    }
    for (const [, name, output] of file.text.matchAll(/\b(\w+)!?\.outputs\.(\w+)/g)) {
      if (modules.has(name) && !modules.get(name).outputs.has(output)) {
        findings.push({ where: file.name, message: `${name} has no output ${output}` })
      }
    }
  }
  for (const file of project.files) {
    if (file !== project.main && !called.has(file)) {
      findings.push({ where: file.name, message: 'no module statement names this file' })
    }
  }
  return findings
}

function checkInputs(params, target, report) {
  for (const parameter of target.parameters.values()) {
    if (parameter.required && !(parameter.name in params)) {
      report(`${parameter.name} is missing`)
    }
  }
  for (const [name, value] of Object.entries(params)) {
    const parameter = target.parameters.get(name)
    if (!parameter) {
      report(`${target.name} has no parameter ${name}`)
      continue
    }
    for (const outcome of outcomes(value)) {
      const problem = outcome instanceof Unknown || outcome === null ? '' : misfit(parameter, outcome)
      if (problem) {
        report(`${name} ${problem}`)
      }
    }
  }
}

/** misfit says why a value is none for a parameter, or nothing. */
export function misfit(parameter, value) {
  const kinds = { string: 'string', int: 'number', bool: 'boolean', array: 'array', object: 'object' }
  const kind = Array.isArray(value) ? 'array' : typeof value
  const wanted = kinds[parameter.type.kind] ?? 'object' // a type of the file's own
  if (kind !== wanted) {
    return `must be ${wanted}, not ${kind}`
  }
  const allowed = parameter.type.allowed ?? parameter.decorators.allowed?.[0]
  if (allowed && !allowed.includes(value)) {
    return `is '${value}', which is none of ${allowed.join(', ')}`
  }
  const { minValue, maxValue } = parameter.decorators
  if (value < (minValue?.[0] ?? -Infinity) || value > (maxValue?.[0] ?? Infinity)) {
    return `is ${value}, not from ${minValue?.[0]} to ${maxValue?.[0]}`
  }
  return ''
}
