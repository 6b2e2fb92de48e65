// Compares values with the lists and patterns that Azure publishes of them. The compiler leaves these open, for Azure may know more by now.

import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'

/** publishedTypes reads the extract of Azure's types beside the project, or in the folder that BICEP_TYPES names; null where it is missing. */
export function publishedTypes(root) {
  const path = join(process.env.BICEP_TYPES ?? join(root, '../shared/bicep-types'), 'types.json')
  return existsSync(path) ? JSON.parse(readFileSync(path, 'utf8')) : null
}

// Types that the extract has not; the compiler still checks their properties.
const notExtracted = ['Microsoft.Insights/activityLogAlerts']

/** checkValues looks at every value of every resource that rules look at. */
export function checkValues(project) {
  const findings = new Map()
  for (const resource of project.deployments.flatMap(deployment => deployment.resources)) {
    const entry = project.types[`${resource.type}@${resource.apiVersion}`]
    const report = message => findings.set(`${resource.type}: ${message}`, { where: resource.type, message })
    if (!entry && notExtracted.includes(resource.type)) {
      continue
    }
    if (!entry) {
      report(`the types do not have version ${resource.apiVersion}`)
      continue
    }
    const { id, name, ...said } = resource
    const { types, root } = entry
    walk(types, types[index(types[root].body)], said, '', report)
  }
  return [...findings.values()]
}

function walk(types, type, value, path, report) {
  if (value === null || value === undefined || (typeof value === 'string' && value.startsWith('['))) { // an expression that only Azure knows
    return
  }
  const listed = (type.elements?.map?.(element => types[index(element)].value) ?? []).filter(element => element !== undefined)
  if (listed.length > 0 && !listed.includes(value)) {
    report(`${path} is '${value}', which is none of ${listed.join(', ')}`)
  }
  if (type.pattern && !new RegExp(type.pattern).test(value)) {
    report(`${path} is '${value}', which does not match ${type.pattern}`)
  }
  if (Array.isArray(value)) {
    value.forEach((item, i) => type.itemType && walk(types, types[index(type.itemType)], item, `${path}[${i}]`, report))
  } else if (typeof value === 'object') {
    const chosen = type.elements?.[value[type.discriminator]]
    const properties = { ...type.properties, ...type.baseProperties, ...(chosen && types[index(chosen)].properties) }
    for (const [name, item] of Object.entries(value)) {
      const inner = properties[name]?.type ?? type.additionalProperties
      if (inner) {
        walk(types, types[index(inner)], item, path ? `${path}.${name}` : name, report)
      }
    }
  }
}

function index(reference) {
  return reference.$ref.slice(2)
}
