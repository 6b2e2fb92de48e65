// What the example of docs/usechat.md has of its application.
import type { ReactNode } from 'react'

export declare function token(): Promise<string>
export declare function Card(_: { card: object; submit: (data: object) => void }): ReactNode
