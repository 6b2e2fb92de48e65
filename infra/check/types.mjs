// Compares what resources say with the published types of Azure's resources.

import { Unknown, outcomes } from './bicep.mjs'

const required = 1
const readOnly = 2

// What the language itself adds to every resource.
const ofTheLanguage = new Set(['scope', 'parent', 'dependsOn'])

// The extract of the types leaves descriptions out, and properties of that name with them. The compiler checks these.
const notInTheExtract = 'description'

/** checkTypes compares type, API version, property names, required properties, kinds of values and listed values. */
export function checkTypes(project) {
  const findings = []
  for (const resource of project.resources) {
    const report = message => findings.push({ where: `${resource.file.name}:${resource.line}`, message: `${resource.name}: ${message}` })
    const key = `${resource.type}@${resource.version}`
    const entry = project.types[key]
    if (!entry) {
      if (!(resource.existing && isOnlyNamed(resource))) {
        report(`the types do not have ${key}`)
      }
      continue
    }
    const types = entry.types
    const body = types[entry.root].body.$ref.slice(2)
    const own = Object.fromEntries(Object.entries(resource.body).filter(([name]) => !ofTheLanguage.has(name)))
    checkObject(types, types[body], own, '', report, resource.existing)
  }
  return findings
}

// isOnlyNamed says whether a resource that is there already is used as a scope, a parent or an id alone: then nothing of its type matters.
function isOnlyNamed(resource) {
  const reads = new RegExp(`\\b${resource.name}[!?]?\\.\\??(?!id\\b|name\\b)\\w`)
  return !reads.test(resource.file.text)
}

function checkValue(types, type, value, path, report) {
  for (const outcome of outcomes(value)) {
    if (!(outcome instanceof Unknown) && outcome !== null && outcome !== undefined) {
      checkOutcome(types, type, outcome, path, report)
    }
  }
}

function checkOutcome(types, type, value, path, report) {
  const kind = Array.isArray(value) ? 'array' : typeof value
  const mustBe = (wanted) => kind === wanted || (report(`${path} must be ${wanted}, not ${kind}`), false)
  switch (type.$type) {
    case 'ObjectType':
    case 'DiscriminatedObjectType':
      if (mustBe('object')) {
        checkObject(types, type, value, path, report, false)
      }
      break
    case 'ArrayType':
      if (mustBe('array')) {
        value.forEach((item, i) => checkValue(types, resolve(types, type.itemType), item, `${path}[${i}]`, report))
      }
      break
    case 'UnionType': {
      const listed = type.elements.map(element => resolve(types, element).value).filter(element => element !== undefined)
      if (mustBe('string') && !listed.includes(value)) {
        report(`${path} is '${value}', which is none of ${listed.join(', ')}`)
      }
      break
    }
    case 'StringLiteralType':
      if (mustBe('string') && value !== type.value) {
        report(`${path} is '${value}', not '${type.value}'`)
      }
      break
    case 'StringType':
      if (mustBe('string')) {
        checkString(type, value, path, report)
      }
      break
    case 'IntegerType':
      if (mustBe('number') && (value < (type.minValue ?? -Infinity) || value > (type.maxValue ?? Infinity))) {
        report(`${path} is ${value}, not from ${type.minValue} to ${type.maxValue}`)
      }
      break
    case 'BooleanType':
      mustBe('boolean')
  }
}

function checkString(type, value, path, report) {
  if (type.pattern && !new RegExp(type.pattern).test(value)) {
    report(`${path} is '${value}', which does not match ${type.pattern}`)
  }
  if (value.length > (type.maxLength ?? Infinity) || value.length < (type.minLength ?? 0)) {
    report(`${path} has ${value.length} characters, not from ${type.minLength ?? 0} to ${type.maxLength}`)
  }
}

function checkObject(types, type, value, path, report, partial) {
  let properties = type.properties ?? type.baseProperties ?? {}
  if (type.$type === 'DiscriminatedObjectType') {
    const [chosen] = outcomes(value[type.discriminator])
    const element = type.elements[chosen]
    if (!element) {
      if (!(chosen instanceof Unknown)) {
        report(`${join(path, type.discriminator)} is '${chosen}', which is none of ${Object.keys(type.elements).join(', ')}`)
      }
      return
    }
    properties = { ...properties, ...resolve(types, element).properties }
  }
  for (const [name, property] of Object.entries(properties)) {
    if (property.flags & required && !(property.flags & readOnly) && !partial && !(name in value)) {
      report(`${join(path, name)} is missing`)
    }
  }
  for (const [name, item] of Object.entries(value)) {
    const property = properties[name]
    if (property) {
      if (property.flags & readOnly && !partial && !(property.flags & required)) {
        report(`${join(path, name)} can only be read`)
      }
      checkValue(types, resolve(types, property.type), item, join(path, name), report)
    } else if (type.additionalProperties) {
      checkValue(types, resolve(types, type.additionalProperties), item, join(path, name), report)
    } else if (!name.includes('${') && name !== notInTheExtract) {
      report(`${join(path, name)} is not a property; there are ${Object.keys(properties).join(', ')}`)
    }
  }
}

function join(path, name) {
  return path ? `${path}.${name}` : name
}

function resolve(types, reference) {
  return types[reference.$ref.slice(2)]
}
